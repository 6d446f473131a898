"""CSV: a header, then a record a row. The delimiter is the header's: comma, semicolon, tab or bar."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources.identity import file_fingerprint
from penstock.tasks.backfill.sources.lines import Truncated, decompressed, refuse_utf16
from penstock.tasks.backfill.sources.row import MAX_ROW_BYTES, Fields, InvalidRow, Row, choose_fields, read_record

SAMPLE_ROWS = 100


class CsvRows:
    """A CSV file with a header. A row without an id has its number, from 1, the header not counted."""

    def __init__(self, path: Path, text_field: str | None, id_field: str | None) -> None:
        self.name, self._path = str(path), path
        self._size, self._read = path.stat().st_size, 0
        with self._records() as (header, records):
            rows = [row for row in islice(_until_cut(records), SAMPLE_ROWS) if isinstance(row, list)]
        sample: list[dict[str, Any]] = [dict(zip(header, row, strict=False)) for row in rows]
        self._header = header
        self.fields: Fields = choose_fields(sample or [dict.fromkeys(header, "")], text_field, id_field, self.name)

    def fingerprint(self) -> str | None:
        """See Source."""
        return file_fingerprint(self._path)

    def progress(self) -> tuple[int, int | None]:
        """See Source: bytes."""
        return self._read, self._size

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        """See Source."""
        ordinal = -1
        with self._records() as (_, records):
            try:
                for ordinal, record in enumerate(records):
                    if ordinal >= skip:
                        yield self._row(ordinal, record)
            except Truncated as exc:
                message = f"after row {ordinal + 1}: the compressed file is cut or corrupt from here on ({exc})"
                yield InvalidRow(ordinal + 1, None, "source_truncated", message)
        self._read = self._size

    def _row(self, ordinal: int, record: list[str] | csv.Error) -> Row:
        position = f"row {ordinal + 1}"
        if isinstance(record, csv.Error):
            return InvalidRow(ordinal, None, "corrupt_row", f"{position}: not valid CSV ({record})")
        if len(record) != len(self._header):
            message = f"{position}: {len(record)} fields where the header has {len(self._header)}"
            return InvalidRow(ordinal, None, "corrupt_row", message)
        values = dict(zip(self._header, record, strict=True))
        if any("\udc80" <= char <= "\udcff" for value in self._used(values) for char in _beyond_ascii(value)):
            return InvalidRow(ordinal, None, "invalid_utf8", f"{position}: not valid UTF-8")
        return read_record(ordinal, position, str(ordinal + 1), values, self.fields)

    def _used(self, values: dict[str, str]) -> Iterator[str]:
        return (values[name] for name in (self.fields.text, self.fields.id) if name in values)

    @contextmanager
    def _records(self) -> Iterator[tuple[list[str], Iterator[list[str] | csv.Error]]]:
        """Open the file; give its header and its records, blank lines left out."""
        with self._path.open("rb") as raw:
            refuse_utf16(raw.peek(2))
            binary = decompressed(raw, self._path.suffix)
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
            first = text.readline(MAX_ROW_BYTES)
            if not first.strip():
                raise InputInvalid(f"{self.name} is empty: a CSV file begins with a header that names its fields")
            lines = self._counted(text, raw, first)
            csv.field_size_limit(MAX_ROW_BYTES)
            reader = csv.reader(lines, delimiter=_delimiter(first), strict=True)
            yield self._read_header(reader), _tolerant(reader)

    def _read_header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            return [name.strip() for name in next(reader)]
        except csv.Error as exc:
            raise InputInvalid(f"{self.name} has no readable CSV header: {exc}") from exc

    def _counted(self, text: io.TextIOWrapper, raw: io.BufferedReader, first: str) -> Iterator[str]:
        yield first
        while line := text.readline(MAX_ROW_BYTES):
            self._read = raw.tell()
            yield line


def _tolerant(reader: Any) -> Iterator[list[str] | csv.Error]:
    """Yield records; what breaks the format is yielded as the error, and reading goes on at the next line."""
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield exc
        else:
            if record:
                yield record


def _until_cut(records: Iterator[list[str] | csv.Error]) -> Iterator[list[str] | csv.Error]:
    try:
        yield from records
    except Truncated:
        return


def _delimiter(header: str) -> str:
    """Return the most frequent of the usual delimiters in the header; a comma if there is none."""
    return max(",;\t|", key=header.count) if any(char in header for char in ",;\t|") else ","


def _beyond_ascii(value: str) -> str:
    return "" if value.isascii() else value
