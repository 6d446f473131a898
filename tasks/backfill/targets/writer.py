"""Gathers finished batches into shards and commits them: shard, ledger, name, and only then are results dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from penstock.tasks.backfill.dispatch.settle import Settled
from penstock.tasks.backfill.ledger.folder import OutputFolder
from penstock.tasks.backfill.ledger.ledger import ShardEntry, Tally, Unresolved
from penstock.tasks.backfill.plan.batch import Batch, DeadLetter
from penstock.tasks.backfill.targets.parquet import Sink, check, clean, publish, read_vectors, shard_name

LONGEST_OPEN_S = 600.0
"""A shard is closed after this many seconds even if it is small, so that results never wait long in the broker."""

DUPLICATES_AT_ONCE = 4096


class Writer:
    """What writes one job's output.

    Args:
        folder: the output folder.
        with_text: whether texts are written.
        forget: drops the results of tasks, by their ids.
    """

    def __init__(self, folder: OutputFolder, with_text: bool, forget: Callable[[Sequence[str]], None]) -> None:
        self._folder, self._ledger, self._with_text, self._forget = folder, folder.ledger, with_text, forget
        self._sink: Sink | None = None
        self._number = 0
        self._empty()
        self._clock = time.monotonic()

    def _empty(self) -> None:
        self._sink = None
        self._opened = time.monotonic()
        self._entries: list[ShardEntry] = []
        self._tasks: list[str] = []
        self._duplicates: list[int] = []
        self._dead: list[DeadLetter] = []
        self.open_tally = Tally()

    def recover(self) -> None:
        """Put right what a killed run left: finish the last shard's commit, drop what never got that far."""
        shards = self._ledger.shards()
        clean(self._folder.hidden, shards)
        check(self._folder.path, self._folder.hidden, shards)
        if shards:
            self._forget(self._ledger.tasks_of(shards[-1].number))
            self._number = shards[-1].number + 1

    @property
    def dimensions(self) -> int | None:
        """Length of the job's vectors, once known."""
        return self._ledger.dimensions

    def take(self, batch: Batch, settled: Settled) -> None:
        """Take a finished batch in; close the shard when it is full."""
        rows: Sequence[int] = settled.rows
        if settled.output_rows:
            first = self._open(settled.vectors.shape[1]).add(settled.output_rows, settled.texts, settled.vectors)
            rows = [row if row < 0 else first + row for row in settled.rows]
        self._entries.append(ShardEntry(batch.number, rows, settled.failures))
        self._tasks.append(batch.task_id)
        self._dead += settled.dead
        self.open_tally += settled.tally
        if self._due():
            self.seal()

    def _due(self) -> bool:
        if self._sink is not None and self._sink.full:
            return True
        return time.monotonic() - self._opened > LONGEST_OPEN_S

    def _open(self, dimensions: int) -> Sink:
        if self._sink is None:
            if self._ledger.dimensions is None:
                self._ledger.set_dimensions(dimensions)
            self._sink = Sink(self._folder.path, self._folder.hidden, self._number, dimensions, self._with_text)
        return self._sink

    def seal(self) -> None:
        """Commit what has been taken in."""
        seconds = self.spent()
        if not (self._entries or self._duplicates):
            self._ledger.spend(seconds)
            self._opened = time.monotonic()
            return
        shard = self._sink.close() if self._sink is not None else None
        tally = self.open_tally + Tally(seconds=seconds)
        self._ledger.seal(shard, self._entries, self._duplicates, self._dead, tally)
        if shard is not None:
            publish(self._folder.path, self._folder.hidden, shard)
            self._number += 1
        tasks = self._tasks
        self._empty()
        self._forget(tasks)

    def spent(self) -> float:
        """Return the seconds since this was last asked."""
        last, self._clock = self._clock, time.monotonic()
        return self._clock - last

    @property
    def seconds(self) -> float:
        """The job's working time so far, with what the ledger does not have yet."""
        return self._ledger.tally.seconds + time.monotonic() - self._clock

    def discard(self) -> None:
        """Drop the open shard: its results are still stored and will be fetched again."""
        if self._sink is not None:
            self._sink.discard()
        self._empty()

    def settle_duplicates(self) -> int:
        """Give some duplicates the vectors of the rows that they repeat. Returns how many; 0 when none is left.

        Everything that they repeat must be in a shard that the ledger has.
        """
        unresolved = self._ledger.unresolved(DUPLICATES_AT_ONCE)
        for shard in sorted({each.shard for each in unresolved if each.failure is None}):
            self._settle_from(shard, [each for each in unresolved if each.shard == shard and each.failure is None])
        failed = [each for each in unresolved if each.failure is not None]
        self._dead += [_letter(each) for each in failed]
        self._duplicates += [each.key for each in unresolved]
        self.open_tally += Tally(
            embedded=len(unresolved) - len(failed), duplicates_reused=len(unresolved) - len(failed), failed=len(failed)
        )
        if unresolved:
            self.seal()
        return len(unresolved)

    def _settle_from(self, shard: int, unresolved: Sequence[Unresolved]) -> None:
        ordered = sorted(unresolved, key=lambda each: each.row)
        path = self._folder.path / shard_name(shard)
        vectors, texts = read_vectors(path, [each.row for each in ordered], self._with_text)
        self._open(vectors.shape[1]).add([each.output_row for each in ordered], texts, vectors)


def _letter(unresolved: Unresolved) -> DeadLetter:
    assert unresolved.failure is not None
    return DeadLetter(
        unresolved.output_row.ordinal, unresolved.output_row.chunk, unresolved.output_row.id, *unresolved.failure
    )
