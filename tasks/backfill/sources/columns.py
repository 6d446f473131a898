"""Parquet, read a slice of a row group at a time and only the two columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources.identity import file_fingerprint
from penstock.tasks.backfill.sources.row import TEXT_FALLBACKS, Fields, InvalidRow, Row, read_id, read_text

SLICE_ROWS = 1024


class ParquetRows:
    """A Parquet file. A row without an id has its number, from 1."""

    def __init__(self, path: Path, text_field: str | None, id_field: str | None) -> None:
        self.name, self._path, self._read = str(path), path, 0
        with self._open() as file:
            schema, self._total = file.schema_arrow, file.metadata.num_rows
        self.fields: Fields = _choose_columns(schema, text_field, id_field, self.name)
        self._has_id = self.fields.id in schema.names

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path)
        except (pa.ArrowException, OSError) as exc:
            raise InputInvalid(f"{self.name} cannot be read as Parquet: {exc}") from exc

    def fingerprint(self) -> str | None:
        """See Source."""
        return file_fingerprint(self._path)

    def progress(self) -> tuple[int, int | None]:
        """See Source: rows."""
        return self._read, self._total

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        """See Source. Row groups before ``skip`` are not read."""
        with self._open() as file:
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if start + count > skip:
                    yield from self._group(file, group, start, max(skip - start, 0))
                start += count
        self._read = self._total

    def _group(self, file: pq.ParquetFile, group: int, start: int, skip: int) -> Iterator[Row]:
        """Yield one row group's rows. What cannot be decoded costs its own row group, row by row, and no more."""
        done, count = 0, file.metadata.row_group(group).num_rows
        columns = list({self.fields.text, *([self.fields.id] if self._has_id else [])})
        try:
            for batch in file.iter_batches(SLICE_ROWS, row_groups=[group], columns=columns):
                for offset, row in enumerate(self._slice(batch, start + done), done):
                    if offset >= skip:
                        self._read = row.ordinal + 1
                        yield row
                done += batch.num_rows
        except (pa.ArrowException, OSError) as exc:
            for ordinal in range(start + max(done, skip), start + count):
                yield InvalidRow(
                    ordinal, None, "corrupt_row", f"row {ordinal + 1}: row group {group} is corrupt ({exc})"
                )

    def _slice(self, batch: pa.RecordBatch, start: int) -> Iterator[Row]:
        texts = _strings(batch.column(self.fields.text))
        ids = _strings(batch.column(self.fields.id)) if self._has_id else [None] * batch.num_rows
        for ordinal, (text, own_id) in enumerate(zip(texts, ids, strict=True), start):
            yield self._row(ordinal, text, own_id)

    def _row(self, ordinal: int, text: Any, own_id: Any) -> Row:
        position = f"row {ordinal + 1}"
        row_id = read_id(own_id) if self._has_id else str(ordinal + 1)
        if row_id is None:
            return InvalidRow(
                ordinal, None, "invalid_id", f"{position}: column {self.fields.id!r} is null, empty or not text"
            )
        if text is None:
            return InvalidRow(ordinal, row_id, "missing_text", f"{position}: column {self.fields.text!r} is null")
        if isinstance(text, bytes):
            return InvalidRow(ordinal, row_id, "invalid_utf8", f"{position}: not valid UTF-8")
        return read_text(ordinal, position, row_id, text)


def _strings(column: pa.Array) -> list[Any]:
    """Return a column as Python values; a string that is not UTF-8 stays bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        binary = column.cast(pa.large_binary()) if not pa.types.is_binary(column.type) else column
        return [_decoded(value) for value in binary.to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _choose_columns(schema: pa.Schema, text_field: str | None, id_field: str | None, name: str) -> Fields:
    """Choose the columns by name and type.

    Raises:
        InputInvalid: there is no such column, or it holds neither text (nor, for the id, integers).
    """
    texts = [field.name for field in schema if _is_text(field.type)]
    guesses = [usual for usual in TEXT_FALLBACKS if usual in texts] or [column for column in texts if column != "id"]
    text = text_field or (guesses[0] if len(guesses) == 1 or set(guesses) & set(TEXT_FALLBACKS) else "text")
    listed = ", ".join(f"{field.name!r} ({field.type})" for field in schema) or "none"
    if text not in texts:
        wanted = f"has no column of text named {text!r}" if text_field else "has no column that is plainly the text"
        raise InputInvalid(f"{name} {wanted}. Columns found: {listed}. Name the one with the text with --text-field.")
    chosen = Fields(text, id_field or "id", id_required=id_field is not None)
    if chosen.id not in schema.names:
        if chosen.id_required:
            raise InputInvalid(f"{name} has no column {chosen.id!r}. Columns found: {listed}. Name it with --id-field.")
        return chosen
    kind = schema.field(chosen.id).type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise InputInvalid(
            f"{name}: column {chosen.id!r} holds {kind}; an id is text or an integer. Name another "
            f"with --id-field. Columns found: {listed}."
        )
    return chosen


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
