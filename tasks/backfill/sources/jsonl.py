"""JSON lines: one object a line. Blank lines are no rows, as the format's readers agree; their numbers still count."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from penstock.tasks.backfill.sources.identity import file_fingerprint
from penstock.tasks.backfill.sources.lines import LineFile, LineStream, SourceLine, Truncated
from penstock.tasks.backfill.sources.row import MAX_ROW_BYTES, Fields, InvalidRow, Row, choose_fields, read_record

SAMPLE_LINES = 100


class JsonLines:
    """A JSONL file, or standard input when ``path`` is None. A row without an id has its line's number, from 1."""

    def __init__(self, path: Path | None, text_field: str | None, id_field: str | None) -> None:
        self.name = str(path) if path else "standard input"
        self._path = path
        self._lines: LineFile | LineStream = LineFile(path) if path else LineStream(sys.stdin.buffer)
        self.fields: Fields = choose_fields(self._sample(), text_field, id_field, self.name)

    def _sample(self) -> list[dict[str, Any]]:
        if isinstance(self._lines, LineStream):
            lines = self._lines.peek(SAMPLE_LINES)
        else:
            lines = list(_readable(islice(self._lines.lines(), SAMPLE_LINES)))
        return [record for line in lines if isinstance(record := _parse_if_valid(line.data), dict)]

    def fingerprint(self) -> str | None:
        """See Source. Standard input has none: its lines carry a running checksum in place of it."""
        return file_fingerprint(self._path) if self._path else None

    def progress(self) -> tuple[int, int | None]:
        """See Source: bytes of a file, lines of standard input."""
        return self._lines.progress()

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        """See Source."""
        index = skip - 1
        try:
            for line in self._passed(skip, mark):
                index = line.ordinal
                if line.data is None or line.data.strip():
                    yield self._row(line)
        except Truncated as exc:
            yield cut(index, exc)

    def _passed(self, skip: int, mark: int) -> Iterator[SourceLine]:
        if isinstance(self._lines, LineFile):
            return self._lines.lines(skip)
        return self._lines.lines(skip, mark)

    def _row(self, line: SourceLine) -> Row:
        position = f"line {line.ordinal + 1}"
        if line.data is None:
            return too_long(line.ordinal, position, line.mark)
        try:
            record = _parse(line.data)
        except UnicodeDecodeError as exc:
            message = f"{position}: not valid UTF-8 (byte {exc.start + 1} of the line)"
            return InvalidRow(line.ordinal, None, "invalid_utf8", message, line.mark)
        except (ValueError, RecursionError) as exc:
            return InvalidRow(
                line.ordinal, None, "invalid_json", f"{position}: not valid JSON ({_reason(exc)})", line.mark
            )
        if isinstance(record, dict) and isinstance(record.get(self.fields.id), float):
            record = json.loads(line.data)  # orjson reads integers over 64 bits as floats; an id keeps its digits
        return read_record(line.ordinal, position, str(line.ordinal + 1), record, self.fields, line.mark)


def _parse(data: bytes) -> Any:
    """Parse a line; what orjson refuses and Python itself writes (NaN, integers of any size) is taken too."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode())


def _parse_if_valid(data: bytes | None) -> Any:
    try:
        return _parse(data or b"null")
    except (ValueError, RecursionError):
        return None


def _readable(lines: Iterator[SourceLine]) -> Iterator[SourceLine]:
    """Yield lines as long as they can be read; the pass over the rows says what is wrong after that."""
    try:
        yield from lines
    except Truncated:
        return


def _reason(exc: Exception) -> str:
    return f"{exc.msg}, column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else type(exc).__name__


def too_long(ordinal: int, position: str, mark: int = 0) -> InvalidRow:
    """Return the dead letter of a line over the bound."""
    message = f"{position}: longer than {MAX_ROW_BYTES // 2**20} MiB; split it, or check that the file is not corrupt"
    return InvalidRow(ordinal, None, "row_too_large", message, mark)


def cut(last_index: int, exc: Truncated) -> InvalidRow:
    """Return the dead letter that stands for all that a cut file no longer holds."""
    message = f"after line {last_index + 1}: the compressed file is cut or corrupt from here on ({exc})"
    return InvalidRow(last_index + 1, None, "source_truncated", message)
