"""A text file: a document a line. The id is the line's number, from 1; an empty line is an empty document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources.identity import file_fingerprint
from penstock.tasks.backfill.sources.jsonl import cut, too_long
from penstock.tasks.backfill.sources.lines import LineFile, SourceLine, Truncated
from penstock.tasks.backfill.sources.row import Fields, InvalidRow, Row, read_text


class TextLines:
    """A file whose every line is a text."""

    fields: Fields | None = None

    def __init__(self, path: Path, text_field: str | None, id_field: str | None) -> None:
        if text_field or id_field:
            raise InputInvalid(f"{path} is a text file, a document a line: it has no fields to name")
        self.name, self._path, self._lines = str(path), path, LineFile(path)

    def fingerprint(self) -> str | None:
        """See Source."""
        return file_fingerprint(self._path)

    def progress(self) -> tuple[int, int | None]:
        """See Source: bytes."""
        return self._lines.progress()

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        """See Source."""
        index = skip - 1
        try:
            for line in self._lines.lines(skip):
                index = line.ordinal
                yield _row(line)
        except Truncated as exc:
            yield cut(index, exc)


def _row(line: SourceLine) -> Row:
    position, row_id = f"line {line.ordinal + 1}", str(line.ordinal + 1)
    if line.data is None:
        return too_long(line.ordinal, position)
    try:
        text = line.data.decode()
    except UnicodeDecodeError as exc:
        message = f"{position}: not valid UTF-8 (byte {exc.start + 1} of the line)"
        return InvalidRow(line.ordinal, row_id, "invalid_utf8", message)
    return read_text(line.ordinal, position, row_id, text)
