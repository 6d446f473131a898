"""Makes batches of documents' chunks: drops none, sends equal texts once, keeps to the endpoint's caps. No I/O.

Packing is ``penstock.tasks.request.packing``'s; here is what a backfill adds: where to read on after each batch, and
the texts that were seen before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import UUID

from penstock.config.endpoints.services import Caps
from penstock.tasks.backfill.plan.batch import (
    DIGEST_BYTES,
    Batch,
    DeadLetter,
    Duplicate,
    OutputRow,
    Plan,
    Position,
    name_task,
)
from penstock.tasks.backfill.plan.seen import Seen, SeenIds
from penstock.tasks.backfill.sources import Document, InvalidRow, Row
from penstock.tasks.request.packing import CERTAINLY_TOO_LONG, pack
from penstock.workers.lanes.tokens import BYTES_PER_TOKEN

Spans = Sequence[tuple[int, int] | None]
Chunked = tuple[Row, Spans]
"""A row and the chunks of its text, as (start, end) in characters, None for one that is not wanted now.

A bad row has none, and fails as a whole; if it has some, each of them fails."""

MOST_ASIDE = 1 << 15
"""Dead letters and duplicates that one plan may gather before it is written, batch or no batch."""

_TEXT_BITS = 20


def digest(data: bytes) -> bytes:
    """Return the 16 bytes by which a text is known: BLAKE2b, wide enough that two texts never share them."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def place_of(batch: int, text: int) -> int:
    """Return the number under which ``Seen`` knows a batch's text."""
    return batch << _TEXT_BITS | text


@dataclass(slots=True)
class _Item:
    """A text to be sent, with every row that wants its vector, and where reading went on after what came before it."""

    text: str
    size: int
    key: bytes
    before: Position
    output_rows: list[OutputRow] = field(default_factory=list)


class Planner:
    """Turns a stream of chunked rows into plans.

    Args:
        job: the job's id, from which the tasks' ids come.
        caps: what a request may carry.
        budget: most estimated tokens a request, for the lane's sake; None for no bound but the caps'.
        seen: the texts known.
        position: where the stream begins.
        number: the first batch's number.
    """

    def __init__(
        self, job: UUID, caps: Caps, budget: float | None, seen: Seen, position: Position, number: int
    ) -> None:
        self._job, self._caps, self._budget, self._seen = job, caps, budget, seen
        self._position, self._number = position, number
        self._ids = SeenIds()
        self._passed = position.chunk
        self._more = True
        self._waiting: list[_Item] = []
        self._open: dict[bytes, _Item] = {}
        self._plan = Plan(position)
        self._aside = 0  # dead letters, duplicates and further rows of open texts in the plan
        self._most_bytes = CERTAINLY_TOO_LONG * BYTES_PER_TOKEN * caps.input_tokens if caps.input_tokens else None

    def plans(self, rows: Iterable[Chunked]) -> Iterator[Plan]:
        """Yield plans, the last one marked; each output row and each document is in exactly one of them."""
        stream = iter(rows)
        self._more = True
        while self._more:
            for chosen in pack(self._sizes(stream), self._caps, self._budget):
                yield self._close(len(chosen))
            if self._more:
                yield self._commit(None, self._position)
        self._plan.last = True
        yield self._commit(None, self._position)

    def _sizes(self, stream: Iterator[Chunked]) -> Iterator[int]:
        """Yield the sizes of the texts to send; end early when a plan has gathered enough beside its batch."""
        for row, spans in stream:
            passed, self._passed = self._passed, 0
            if not passed:
                self._count(row)
            if isinstance(row, InvalidRow):
                self._refuse(row, spans)
            elif len(spans) == 1 and not passed and (span := spans[0]) is not None:
                # A document that is one chunk: the same as below, in half the time.
                size = self._take(row, 0, *span)
                self._position = Position(row.ordinal + 1, 0, row.mark)
                if size is not None:
                    yield size
                    continue
            else:
                yield from self._take_all(row, spans, passed)
            self._position = Position(row.ordinal + 1, 0, row.mark)
            if self._aside >= MOST_ASIDE:
                return
        self._more = False

    # Reading -----------------------------------------------------------------------------------------

    def _count(self, row: Row) -> None:
        self._plan.documents += 1
        if row.id is not None and self._ids.repeats(row.id):
            self._plan.repeated_ids += 1

    def _refuse(self, row: InvalidRow, spans: Spans) -> None:
        chunks: list[int | None] = [chunk for chunk, span in enumerate(spans) if span is not None]
        self._plan.chunks += len(chunks)
        for chunk in chunks or [None]:
            self._plan.dead.append(DeadLetter(row.ordinal, chunk, row.id, row.code, row.message))
            self._aside += 1

    def _take_all(self, row: Document, spans: Spans, passed: int) -> Iterator[int]:
        """Take in a row's chunks; yield the size of each that must be sent."""
        for chunk, span in enumerate(spans):
            if span is None or chunk < passed:
                continue
            size = self._take(row, chunk, *span)
            # Not the row after the last one: in a retry those between are passed over.
            self._position = Position(row.ordinal, chunk + 1, self._position.mark)
            if size is not None:
                yield size

    def _take(self, row: Document, chunk: int, start: int, end: int) -> int | None:
        """Take in one chunk. Returns its size when it must be sent, None when it is dead or known."""
        self._plan.chunks += 1
        output_row = OutputRow(row.ordinal, row.id, chunk, start, end)
        whole = end - start == len(row.text)
        text = row.text if whole else row.text[start:end]
        data = text.encode()
        size = len(data)
        if (self._most_bytes is not None and size > self._most_bytes) or (not whole and text.isspace()):
            self._plan.dead.append(DeadLetter(row.ordinal, chunk, row.id, *self._why(text, size)))
            self._aside += 1
            return None
        key = digest(data)
        if (known := self._open.get(key)) is not None:
            known.output_rows.append(output_row)
            self._aside += 1
            return None
        if (place := self._seen.find(key)) is not None:
            self._plan.duplicates.append(Duplicate(place >> _TEXT_BITS, place & ((1 << _TEXT_BITS) - 1), output_row))
            self._aside += 1
            return None
        item = _Item(text, size, key, self._position, [output_row])
        self._waiting.append(item)
        self._open[key] = item
        return size

    def _why(self, text: str, size: int) -> tuple[str, str]:
        """Say why a text is not even sent."""
        if text.isspace():
            return "empty_text", "the chunk is only whitespace"
        return "input_too_long", (
            f"about {round(size / BYTES_PER_TOKEN)} tokens where the endpoint takes {self._caps.input_tokens} an "
            "input: let the endpoint's chunking_settings split it, or split it before"
        )

    # Writing -----------------------------------------------------------------------------------------

    def _close(self, count: int) -> Plan:
        """Make a batch of the first ``count`` waiting texts; all that was taken in before the next one goes with it."""
        items, self._waiting = self._waiting[:count], self._waiting[count:]
        position = self._waiting[0].before if self._waiting else self._position
        digests = b"".join(item.key for item in items)
        output_rows = [output_row for item in items for output_row in item.output_rows]
        which = [index for index, item in enumerate(items) for _ in item.output_rows]
        batch = Batch(
            self._number,
            name_task(self._job, self._number, digests),
            [item.text for item in items],
            output_rows,
            which,
            sum(item.size for item in items),
            digests,
        )
        self._note(items)
        self._number += 1
        return self._commit(batch, position)

    def _note(self, items: list[_Item]) -> None:
        for index, item in enumerate(items):
            del self._open[item.key]
            self._seen.add(item.key, place_of(self._number, index))

    def _commit(self, batch: Batch | None, position: Position) -> Plan:
        """Hand over the plan; the texts still waiting were counted in it, and belong to the next."""
        plan, self._plan, self._aside = self._plan, Plan(position), 0
        plan.position, plan.batch = position, batch
        held = sum(len(item.output_rows) for item in self._waiting)
        if held:  # at most one text waits: the one that did not fit
            self._plan.chunks += held
            plan.chunks -= held
            began = self._waiting[0].output_rows[0].chunk == 0
            self._plan.documents += began
            plan.documents -= began
        return plan
