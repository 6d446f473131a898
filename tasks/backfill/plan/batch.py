"""What a backfill plans: batches of texts, each one message and about one HTTP request. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID, uuid5

#: Of what a text is known by.
DIGEST_BYTES = 16
#: Stands in a ledger where a dead letter has no chunk.
WHOLE_DOCUMENT = -1


class Position(NamedTuple):
    """How far a source has been planned: all of it before this point is in the ledger.

    Args:
        skip: rows before the one that comes next.
        chunk: chunks of that row that are done with.
        mark: the source's checksum of the rows before, 0 for a source that has none.
    """

    skip: int = 0
    chunk: int = 0
    mark: int = 0


class OutputRow(NamedTuple):
    """A row of the output to be: one chunk of one document. ``start`` and ``end`` are in characters."""

    ordinal: int
    id: str
    chunk: int
    start: int
    end: int


class Duplicate(NamedTuple):
    """A chunk whose text an earlier batch has: it takes the vector of that batch's text, counted from 0."""

    batch: int
    text: int
    output_row: OutputRow


class DeadLetter(NamedTuple):
    """What cannot be done, and why. ``chunk`` is None where it is a whole document, ``id`` where it is not known."""

    ordinal: int
    chunk: int | None
    id: str | None
    code: str
    message: str
    attempts: int = 0


class FailedRow(NamedTuple):
    """A row of the source of which something is tried again.

    Args:
        ordinal: its place in the source.
        id: as it was; None where it was not known.
        chunks: of each chunk that failed, whether it was ever sent; empty for the whole document.
    """

    ordinal: int
    id: str | None
    chunks: Mapping[int, bool]


@dataclass(frozen=True)
class Batch:
    """Texts that go out as one message.

    Args:
        number: counts up from 0 within the job.
        task_id: the Celery task's id.
        texts: distinct.
        output_rows: at least one a text, in the order of the texts.
        which: for each output row, the index of its text.
        size: UTF-8 bytes of all texts.
        digests: the texts' digests, one after another.
    """

    number: int
    task_id: str
    texts: Sequence[str]
    output_rows: Sequence[OutputRow]
    which: Sequence[int]
    size: int
    digests: bytes = field(repr=False)


def name_task(job: UUID, number: int, digests: bytes) -> str:
    """Return the id of a batch's task: the same for the same texts in the same place of the same job, and only then.

    A ledger that lost its last moments to a power cut may plan another batch under the same number; it must never be
    given the result of the one before.
    """
    return str(uuid5(job, f"{number}:{digests.hex()}"))


@dataclass
class Plan:
    """What is written to the ledger in one go: everything up to ``position`` that no earlier plan had.

    Args:
        position: where to read on.
        batch: None when there was nothing to send.
        duplicates: chunks that take an earlier batch's vectors.
        dead: rows and chunks that cannot be sent.
        documents, chunks: counts.
        repeated_ids: rows whose id an earlier row has.
        last: whether the source has ended.
    """

    position: Position
    batch: Batch | None = None
    duplicates: list[Duplicate] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    documents: int = 0
    chunks: int = 0
    repeated_ids: int = 0
    last: bool = False
