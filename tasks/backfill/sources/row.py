"""A row of a corpus: a document, or what is wrong with it. Pure; the readers of the formats build on this.

A row that cannot be used is never dropped: it becomes ``Bad``, with a stable code and its position, and ends as a
dead letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from penstock.config.errors import InputInvalid

TEXT_FALLBACKS = ("text", "content", "body", "passage", "document", "chunk", "sentence")
"""Tried in this order when the user names no text field."""

MAX_ROW_BYTES = 64 * 1024 * 1024
"""A longer row is a dead letter (``row_too_large``), so that a corrupt file cannot fill the memory."""


class Document(NamedTuple):
    """A usable row.

    Args:
        ordinal: its place in the source, from 0; what ``Source.rows(skip)`` counts.
        id: the id, as text.
        text: not empty, not only whitespace.
        mark: a running checksum of everything read so far, for sources that cannot be told apart otherwise.
    """

    ordinal: int
    id: str
    text: str
    mark: int = 0


class InvalidRow(NamedTuple):
    """A row that cannot be used. ``message`` begins with the position; ``id`` is None where it is not known."""

    ordinal: int
    id: str | None
    code: str
    message: str
    mark: int = 0


Row = Document | InvalidRow


@dataclass(frozen=True)
class Fields:
    """Which fields hold the text and the id.

    Args:
        text: the text's field.
        id: the id's field.
        id_required: whether a row without the id field is a dead letter; otherwise its position is its id.
    """

    text: str
    id: str
    id_required: bool


class Source(Protocol):
    """A corpus that can be read from any row on."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def fields(self) -> Fields | None:
        """Where text and id are taken from; None for a source without fields."""
        ...

    def fingerprint(self) -> str | None:
        """Say what tells this corpus from another, None where that shows only while reading (standard input)."""
        ...

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        """Yield the rows from ordinal ``skip`` on, streaming. Ordinals may have gaps (blank lines of JSONL).

        Args:
            skip: how many to pass over.
            mark: the ``mark`` of the row before, from an earlier run; a source with a fingerprint needs none.

        Raises:
            InputInvalid: what was passed over is not what the earlier run had read.
        """
        ...

    def progress(self) -> tuple[int, int | None]:
        """Say how much was read and how much there is: bytes or rows. Called from other threads."""
        ...


def choose_fields(
    sample: Sequence[Mapping[str, Any]], text_field: str | None, id_field: str | None, name: str
) -> Fields:
    """Choose the fields from what the user said and the first rows.

    Raises:
        InputInvalid: no row of the sample has such a text field; the message lists the fields found.
    """
    found = list(dict.fromkeys(key for record in sample for key in record))
    text = text_field or _guess_text(sample, id_field)
    if sample and text not in found:
        listed = ", ".join(repr(key) for key in found) or "none"
        wanted = f"has no field {text!r}" if text_field else f"has none of the usual text fields ({_usual()})"
        raise InputInvalid(f"{name} {wanted}. Fields found: {listed}. Name the one with the text with --text-field.")
    if sample and id_field is not None and id_field not in found:
        listed = ", ".join(repr(key) for key in found)
        raise InputInvalid(f"{name} has no field {id_field!r}. Fields found: {listed}. Name the id's with --id-field.")
    return Fields(text, id_field or "id", id_required=id_field is not None)


def _guess_text(sample: Sequence[Mapping[str, Any]], id_field: str | None) -> str:
    """Return a usual name that the sample has, else its only field of strings, else the default."""
    if any(TEXT_FALLBACKS[0] in record for record in sample):
        return TEXT_FALLBACKS[0]
    for name in TEXT_FALLBACKS:
        if any(isinstance(record.get(name), str) for record in sample):
            return name
    strings = {key for record in sample for key, value in record.items() if isinstance(value, str)}
    strings -= {"id", id_field or "id"}
    return strings.pop() if len(strings) == 1 else TEXT_FALLBACKS[0]


def _usual() -> str:
    return ", ".join(TEXT_FALLBACKS)


def read_id(value: object) -> str | None:
    """Return an id as text: strings that are not empty, and integers. None for anything else (a float has more than
    one spelling, so it names nothing)."""
    if isinstance(value, str):
        return value if value and _encodable(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def read_record(ordinal: int, position: str, fallback_id: str, record: object, fields: Fields, mark: int = 0) -> Row:
    """Turn one record of a JSONL, CSV or Parquet file into a row.

    Args:
        ordinal: the row's place, from 0.
        position: how messages name it (``line 17``).
        fallback_id: its id when it has none of its own.
        record: what was read; anything but a mapping is a bad row.
        fields: which fields to take.
        mark: the source's running checksum.
    """
    if not isinstance(record, Mapping):
        kind = type(record).__name__
        return InvalidRow(ordinal, None, "not_an_object", f"{position}: a JSON object was expected, not a {kind}", mark)
    own_id = record.get(fields.id)
    if fields.id in record:
        row_id = read_id(own_id)
        if row_id is None:
            message = (
                f"{position}: field {fields.id!r} holds {_kind(own_id)}; an id is a non-empty string or an integer"
            )
            return InvalidRow(ordinal, None, "invalid_id", message, mark)
    elif fields.id_required:
        return InvalidRow(ordinal, None, "missing_id", f"{position}: no field {fields.id!r}", mark)
    else:
        row_id = fallback_id
    if record.get(fields.text) is None:
        return InvalidRow(ordinal, row_id, "missing_text", f"{position}: {_absence(record, fields.text)}", mark)
    return read_text(ordinal, position, row_id, record[fields.text], mark)


def read_text(ordinal: int, position: str, row_id: str, text: object, mark: int = 0) -> Row:
    """Turn an id and a text into a row; a text must be a string that UTF-8 can carry and that says something."""
    if not isinstance(text, str):
        return InvalidRow(ordinal, row_id, "invalid_text", f"{position}: the text is {_kind(text)}, not a string", mark)
    if not text or text.isspace():
        return InvalidRow(ordinal, row_id, "empty_text", f"{position}: the text is empty or only whitespace", mark)
    if not text.isascii() and not _encodable(text):
        return InvalidRow(ordinal, row_id, "invalid_text", f"{position}: the text holds half a surrogate pair", mark)
    return Document(ordinal, row_id, text, mark)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absence(record: Mapping[str, Any], field: str) -> str:
    return f"field {field!r} is null" if field in record else f"no field {field!r}"


def _kind(value: object) -> str:
    """Name a value's kind in JSON's words, never the value itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "text that is empty or not valid Unicode"
    names = {int: "a number", float: "a number with a fraction", list: "a list", dict: "an object"}
    return names.get(type(value), f"a value of type {type(value).__name__}")
