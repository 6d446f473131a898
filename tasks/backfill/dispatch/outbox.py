"""Batches on their way: sent, waited for, fetched, and sought when nothing is heard of them.

A batch is in the ledger before it comes here. What is lost between us and the broker (its restart, our death between
writing and sending) is found out by looking, and sent again under the same id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from penstock.tasks.backfill.dispatch.publisher import BatchPublisher, NotSent
from penstock.tasks.backfill.dispatch.results import Results, TaskAnswer
from penstock.tasks.backfill.dispatch.settle import Meaning, meaning
from penstock.tasks.backfill.dispatch.window import SendWindow
from penstock.tasks.backfill.ledger.ledger import Ledger, Tally
from penstock.tasks.backfill.plan.batch import Batch

QUIET_S = 15.0
"""Seconds without any result after which missing messages are looked for."""

SILENT_S = 600.0
"""The same where the broker cannot be looked into (RabbitMQ): then all that is outstanding counts as missing."""

TWICE_S = 1.5
"""Seconds between the two looks that a message must be missing from."""


DEFECT_ATTEMPTS = 3
"""Unforeseen errors of one batch after which its texts are held to be the cause, if other batches fare better."""


class Seeker(Protocol):
    """Knows which tasks' messages the broker still has."""

    def tasks(self) -> set[str] | None:
        """Return the ids of the tasks whose messages are there, None where that cannot be known."""
        ...


class Outbox:
    """The batches of one job that are sent and not done.

    Args:
        ledger: notes what was sent.
        publisher: sends.
        results: fetches.
        seeker: finds messages.
        queue_key: the queue's key, for its length.
        window: how much may be outstanding.
    """

    def __init__(
        self,
        ledger: Ledger,
        publisher: BatchPublisher,
        results: Results,
        seeker: Seeker,
        queue_key: str,
        window: SendWindow | None = None,
    ) -> None:
        self._ledger, self._publisher, self._results, self._seeker = ledger, publisher, results, seeker
        self._queue_key = queue_key
        self.window = window or SendWindow()
        self._unsent: deque[Batch] = deque()
        self._out: dict[str, Batch] = {}
        self._times_sent: dict[str, int] = {}
        self._missing: set[str] = set()
        self._defects: dict[str, tuple[int, int]] = {}
        self._verdicts = 0
        self._look_at = float("inf")
        self.heard_at = self._sent_at = time.monotonic()
        self.waiting = 0
        self.billed_twice = 0

    def __len__(self) -> int:
        return len(self._out)

    # Sending -----------------------------------------------------------------------------------------

    def recover(self, batches: Iterable[tuple[Batch, int]]) -> None:
        """Take on what an earlier run left: it may be anywhere, or nowhere."""
        for batch, times in batches:
            self._hold(batch, times)
        if self._out:
            self._look_at = 0.0

    def _hold(self, batch: Batch, times: int) -> None:
        self._out[batch.task_id] = batch
        self._times_sent[batch.task_id] = times
        self.window.sent(len(batch.texts), batch.size)

    def put(self, batch: Batch) -> None:
        """Take on a batch, to be sent by ``flush`` when the ledger has it."""
        self._hold(batch, 0)
        self._unsent.append(batch)

    def flush(self) -> None:
        """Send what was put.

        Raises:
            NotSent: the broker did not take it; it is held as sent, and looked for soon.
        """
        if not self._unsent:
            return
        batches, self._unsent = list(self._unsent), deque()
        new = [batch for batch in batches if not self._times_sent[batch.task_id]]
        # Noted before they go: were we killed in between, what may have been billed would be counted all the same.
        self._ledger.mark_sent([batch.number for batch in batches])
        for batch in batches:
            self._times_sent[batch.task_id] += 1
        try:
            self._publisher.send(batches)
        except NotSent:
            for batch in new:
                self._mark_unsent(batch)
            self._look_soon()
            raise
        self._sent_at = time.monotonic()

    def _mark_unsent(self, batch: Batch) -> None:
        self._ledger.mark_unsent(batch.number)
        self._times_sent[batch.task_id] = 0

    # Fetching ----------------------------------------------------------------------------------------

    def collect(self) -> Iterator[tuple[Batch, TaskAnswer, Meaning]]:
        """Yield batches that were answered. One whose answer is no verdict stays, and will be sent again."""
        if not self._out:
            return
        task_ids = list(self._out)  # oldest first, and so are the answers, nearly
        count, self.waiting = self._results.count(task_ids, self._queue_key)
        self.window.look(self.waiting)
        for task_id, answer in self._results.fetch(task_ids, count):
            self.heard_at = time.monotonic()
            batch, what = self._out[task_id], self._judge(task_id, answer)
            if what is Meaning.VERDICT:
                self._verdicts += 1
                self._defects.pop(task_id, None)
                del self._out[task_id], self._times_sent[task_id]
                self.window.done(len(batch.texts), batch.size)
            else:
                self._send_later(batch, billed=what is not Meaning.PARKED)
            yield batch, answer, what

    def _judge(self, task_id: str, answer: TaskAnswer) -> Meaning:
        """Tell what an answer means. An unforeseen error is a verdict only when it comes again and again for the same
        batch, while others are answered: then it is the batch's."""
        what = meaning(answer)
        if what is not Meaning.DEFECT:
            return what
        times, verdicts = self._defects.get(task_id, (0, self._verdicts))
        self._defects[task_id] = (times + 1, verdicts)
        return Meaning.VERDICT if times + 1 >= DEFECT_ATTEMPTS and self._verdicts > verdicts else what

    def _send_later(self, batch: Batch, *, billed: bool) -> None:
        if not billed:
            self._mark_unsent(batch)
        self._results.forget([batch.task_id])
        self._look_soon()

    # Seeking -----------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        self._look_at = min(self._look_at, time.monotonic() + TWICE_S)

    def seek(self, *, closed: bool) -> int:
        """Look for what is missing, if it is time, and put it again. Returns how many batches were put again.

        Args:
            closed: whether the lane is closed, so that silence means nothing.
        """
        now = time.monotonic()
        if closed:
            self.heard_at = now
        if self._out and now - self.heard_at > QUIET_S:
            self.heard_at = now
            self._look_at = min(self._look_at, now)
        if now < self._look_at:
            return 0
        missing = self._find_missing()
        again = sorted(missing & self._missing, key=lambda task_id: self._out[task_id].number)
        self._missing = missing - set(again)
        self._look_at = now + TWICE_S if self._missing else float("inf")
        for task_id in again:
            if self._times_sent[task_id]:  # it was sent for certain, and may have been answered for money
                self.billed_twice += len(self._out[task_id].texts)
            self._unsent.append(self._out[task_id])
        return len(again)

    def _find_missing(self) -> set[str]:
        there = self._seeker.tasks()
        if there is None:
            silent = time.monotonic() - self._sent_at > SILENT_S
            there = set() if silent else {task_id for task_id, times in self._times_sent.items() if times}
        return self._out.keys() - there - self._results.ready(list(self._out))

    def take_billed_twice(self) -> Tally:
        """Return, once, the texts that were sent again though their first sending may have been billed."""
        count, self.billed_twice = self.billed_twice, 0
        return Tally(possibly_billed_twice=count)
