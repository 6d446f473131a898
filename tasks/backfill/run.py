"""Runs a backfill: reads ahead, sends, fetches, writes, until every row is a vector on the disk or a dead letter.

One thread does all of it but the reading; ``penstock.tasks.backfill.ledger.ledger`` says why it may be killed anywhere.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import redis

from penstock.config.errors import BrokerUnavailable, InputInvalid, JobError, PenstockError
from penstock.config.names import BULK, queue_key, queue_name
from penstock.config.settings import Settings
from penstock.tasks.backfill.dispatch.lane_watch import LaneWatch
from penstock.tasks.backfill.dispatch.outbox import Outbox, Seeker
from penstock.tasks.backfill.dispatch.publisher import BatchPublisher, NotSent
from penstock.tasks.backfill.dispatch.results import Results, TaskAnswer
from penstock.tasks.backfill.dispatch.settle import Meaning, settle
from penstock.tasks.backfill.dispatch.window import window_of
from penstock.tasks.backfill.ledger.folder import HIDDEN, OutputFolder, open_folder
from penstock.tasks.backfill.ledger.jobs import refuse_changed_source, remember
from penstock.tasks.backfill.plan.batch import Batch, Plan
from penstock.tasks.backfill.plan.feed import Feed
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.progress import Snapshot, Watch, quota_use
from penstock.tasks.backfill.reading import read_on
from penstock.tasks.backfill.targets.parquet import check
from penstock.tasks.backfill.targets.writer import Writer
from penstock.workers.app import PenstockApp

WAIT_FIRST_S, WAIT_MOST_S = 0.005, 0.25
TELL_S = 0.1
BROKER_PATIENCE_S = 300.0
"""Seconds for which a run waits for a broker that has gone away."""

WORKER_PATIENCE_S = 20.0
"""Seconds for which workers may answer that they cannot even try, with no other answer between."""

PLANS_A_ROUND = 32
_BROKER_ERRORS = (NotSent, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, BrokerUnavailable)


class Interrupted(KeyboardInterrupt):
    """The user interrupted the run; what it had fetched is written, and the next run goes on."""


@dataclass(frozen=True)
class RunContext:
    """What a run needs besides its job.

    Args:
        app: the Celery app.
        results: client of the result back end, answering with bytes.
        lanes: client of the Redis that holds the lanes.
        seeker: finds messages at the broker.
        settings: ours.
        workers: gives workers for the time of the run; by default none, for they run elsewhere.
        no_workers: what to show the user when no worker answers.
    """

    app: PenstockApp
    results: redis.Redis
    lanes: redis.Redis
    seeker: Seeker
    settings: Settings
    workers: Callable[[], AbstractContextManager[object]] = nullcontext
    no_workers: str = "No worker answers. Start one on the same broker: penstock worker"


@dataclass(frozen=True)
class RetryFailed:
    """The wish that what failed is tried once more.

    Args:
        code: only the rows that failed with this code; None for all.
    """

    code: str | None = None


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Args:
        report: as in ``report.json``.
        before: whether the job was finished already, so that nothing was done now.
        repeated_ids: rows that share their id with an earlier one, as far as that was seen.
        failures: how many rows failed, by code.
        retried: failed rows that were tried again.
    """

    report: Mapping[str, Any]
    before: bool = False
    repeated_ids: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    retried: int = 0


def run_backfill(
    job: BackfillJob,
    context: RunContext,
    watch: Watch = lambda snapshot: None,
    retry: RetryFailed | None = None,
) -> RunResult:
    """Run a backfill, or go on with it.

    Args:
        job: what to do.
        context: broker, results, settings.
        watch: is called some ten times a second with how things stand.
        retry: try again what has failed, when the job is done. In a job that begins now nothing has.

    Raises:
        ConfigurationError: the folder belongs to another job, or the source of a retry has changed.
        InputInvalid: the corpus is empty, or cannot be read.
        JobError: another run has the folder, or it cannot be written to.
        BrokerUnavailable: the broker has been away for long.
        Interrupted: by the user.
    """
    fresh = not job.out.exists()
    if retry is not None:
        refuse_changed_source(job.out, job.source.name, job.source.fingerprint())
    try:
        with open_folder(job.out, job.identity()) as folder:
            ledger = folder.ledger
            remember(context.settings.home, folder)
            ledger.note_source(job.source_path, job.id_required)
            passes = _Passes(job, context, folder, watch)
            passes.run(retry if ledger.tally.documents else None)
            return passes.result()
    except _EmptyCorpus:
        shutil.rmtree(job.out if fresh else job.out / HIDDEN)
        raise


class _Passes:
    """The runs that make one job: over the source, and again over what failed."""

    def __init__(self, job: BackfillJob, context: RunContext, folder: OutputFolder, watch: Watch) -> None:
        self._job, self._context, self._folder, self._watch = job, context, folder, watch
        self._ledger = folder.ledger
        self._runs = self._retried = 0

    def run(self, wish: RetryFailed | None) -> None:
        """Go on with what is not finished; then try again what failed, unless that is what was gone on with."""
        under_way = self._ledger.retry
        if self._ledger.report is None:
            self._run()
        met = under_way is not None and wish is not None and under_way.code in (None, wish.code)
        if wish is not None and not met and self._ledger.reopen(wish.code):
            self._run()
        if not self._runs:
            check(self._folder.path, self._folder.hidden, self._ledger.shards())

    def _run(self) -> None:
        self._runs += 1
        self._retried += retry.rows if (retry := self._ledger.retry) else 0
        _with_workers(_Run(self._job, self._context, self._folder, self._watch), self._context)

    def result(self) -> RunResult:
        """Say how it ended."""
        ledger = self._ledger
        return RunResult(
            ledger.report or {}, not self._runs, ledger.repeated_ids, ledger.failure_codes(), self._retried
        )


def _with_workers(run: _Run, context: RunContext) -> None:
    """Run with workers of our own, if there are to be any. An interrupt lets them finish what they have sent, for that
    is paid; any other error ends them at once."""
    interrupted: Interrupted | None = None
    with context.workers():
        try:
            run.go()
        except Interrupted as exc:
            interrupted = exc
    if interrupted is not None:
        raise interrupted


class _EmptyCorpus(InputInvalid):
    """There is not one row: nearly always a wrong path, or a step before this one that failed."""


class _Run:
    def __init__(self, job: BackfillJob, context: RunContext, folder: OutputFolder, watch: Watch) -> None:
        self._job, self._folder, self._ledger, self._watch = job, folder, folder.ledger, watch
        endpoint = job.endpoint
        self._publisher = BatchPublisher(context.app, endpoint.inference_id)
        self._results = Results(context.app, context.results)
        key = queue_key(context.settings.key_prefix, queue_name(endpoint.inference_id, BULK))
        window = window_of(endpoint.rate_limit, job.weight)
        self._outbox = Outbox(self._ledger, self._publisher, self._results, context.seeker, key, window)
        self._lane = LaneWatch(context.app, context.lanes, context.settings, endpoint, context.no_workers)
        self._writer = Writer(folder, job.with_text, self._forget)
        self._unforgotten: list[str] = []
        self._feed: Feed | None = None
        self._resumed, self._retry = self._ledger.tally.documents > 0, self._ledger.retry
        self._interrupt = threading.Event()
        self._shown_at = 0.0
        self._trouble: tuple[float, str] | None = None
        self._refused: tuple[float, str] | None = None

    # The run -----------------------------------------------------------------------------------------

    def go(self) -> None:
        with self._interrupts():
            try:
                self._begin()
                self._work()
                self._finish()
            except BaseException as exc:
                self._break_off(isinstance(exc, Interrupted))
                raise
            finally:
                if self._feed is not None:
                    self._feed.stop()
                self._publisher.close()

    def _begin(self) -> None:
        self._writer.recover()
        if self._ledger.dimensions is not None:
            self._outbox.window.dimensions = self._ledger.dimensions
        self._outbox.recover(self._ledger.unfinished())
        if not self._ledger.read_whole:
            self._feed = Feed(read_on(self._job, self._ledger, self._is_starved))
            self._feed.start()

    def _is_starved(self) -> bool:
        return self._feed is not None and self._feed.starved() and not self._lane.closed

    def _work(self) -> None:
        wait_s = WAIT_FIRST_S
        while not self._is_done():
            if self._interrupt.is_set():
                raise Interrupted
            busy = self._step()
            self._show()
            # Also after success: a round trip is worth more when several results are there.
            wait_s = WAIT_FIRST_S if busy else min(WAIT_MOST_S, wait_s * 1.5)
            self._interrupt.wait(wait_s)

    def _is_done(self) -> bool:
        return (self._feed is None or self._feed.finished) and not len(self._outbox)

    def _step(self) -> bool:
        """Do what can be done now; say whether there was anything. A broker that has gone away is waited for."""
        try:
            self._lane.look(self._outbox.heard_at)
            self._outbox.seek(closed=self._lane.closed)
            busy = self._send()
            busy = self._fetch() or busy
        except _BROKER_ERRORS as exc:
            self._wait_for_broker(exc)
            return False
        self._trouble = None
        return busy

    def _send(self) -> bool:
        plans: list[Plan] = []
        while len(plans) < PLANS_A_ROUND and self._outbox.window.has_room() and (plan := self._next_plan()) is not None:
            plans.append(plan)
            if plan.batch is not None:
                self._outbox.put(plan.batch)
        self._ledger.record(plans)
        self._outbox.flush()
        return bool(plans)

    def _next_plan(self) -> Plan | None:
        return None if self._feed is None or self._feed.finished else self._feed.take()

    def _fetch(self) -> bool:
        found = False
        for batch, answer, what in self._outbox.collect():
            found = True
            if what is Meaning.VERDICT:
                self._take(batch, answer)
            elif isinstance(answer, BaseException) and what is not Meaning.PARKED:
                self._bear(answer)
        return found

    def _take(self, batch: Batch, answer: TaskAnswer) -> None:
        self._refused = None
        settled = settle(batch, answer, self._writer.dimensions)
        self._writer.take(batch, settled)
        if self._writer.dimensions is not None:
            self._outbox.window.dimensions = self._writer.dimensions

    def _bear(self, exc: BaseException) -> None:
        """Bear with a worker that could not even try: perhaps it has just not heard of the endpoint yet."""
        since, _ = self._refused or (time.monotonic(), "")
        words = isinstance(exc, PenstockError) and str(exc)
        self._refused = (since, words or f"{type(exc).__name__}: {exc}")
        if time.monotonic() - since > WORKER_PATIENCE_S:
            raise JobError(
                f"a worker cannot do the job: {self._refused[1]}. Fix that and run the same command again; it goes on "
                "where it was"
            ) from exc

    def _wait_for_broker(self, exc: BaseException) -> None:
        since, _ = self._trouble or (time.monotonic(), "")
        self._trouble = (since, str(exc).strip().rstrip(".") or type(exc).__name__)
        if time.monotonic() - since > BROKER_PATIENCE_S:
            raise BrokerUnavailable(
                f"the broker has been away for {BROKER_PATIENCE_S:.0f} s ({self._trouble[1]}). Start it and run the "
                "same command again; it goes on where it was"
            ) from exc
        self._interrupt.wait(WAIT_MOST_S)

    # The end -----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._refuse_empty()
        self._writer.open_tally += self._outbox.take_billed_twice()
        self._writer.seal()
        while self._writer.settle_duplicates():
            self._show()
        report = self._report()
        self._folder.write_dead_letters()
        self._folder.write_report(report)
        self._ledger.finish(report)
        self._forget([])
        self._show(last=True)

    def _refuse_empty(self) -> None:
        if self._ledger.tally.documents == 0:
            raise _EmptyCorpus(f"{self._job.source.name} is empty: it has not one row, so nothing was done")

    def _report(self) -> dict[str, Any]:
        tally = self._ledger.tally
        limit = self._job.endpoint.rate_limit
        use = quota_use(limit, tally.requests, tally.tokens, tally.seconds)
        return {**asdict(tally), "seconds": round(tally.seconds, 3), "quota_use": use}

    def _break_off(self, interrupted: bool) -> None:
        """Keep what has been fetched, if the disk allows; the rest is found again by the next run."""
        if interrupted:
            self._watch(replace(self._snapshot(), note="Stopping; what is in flight is waited for. Ctrl-C: at once."))
        try:
            self._writer.open_tally += self._outbox.take_billed_twice()
            self._writer.seal()
            if self._ledger.tally.documents and self._retry is None:  # beside a report, both are of one moment
                self._folder.write_dead_letters()
        except JobError:
            self._writer.discard()

    def _forget(self, task_ids: Sequence[str]) -> None:
        """Drop results. The broker may be away: then later, or when they expire."""
        self._unforgotten += task_ids
        try:
            self._results.forget(self._unforgotten)
        except _BROKER_ERRORS:
            return
        self._unforgotten = []

    # The user ----------------------------------------------------------------------------------------

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown_at < TELL_S and not last:
            return
        self._shown_at = now
        self._watch(self._snapshot())

    def _snapshot(self) -> Snapshot:
        tally = self._ledger.tally + self._writer.open_tally
        tally.seconds = self._writer.seconds
        read, total = self._job.source.progress()
        note = f"The broker cannot be reached ({self._trouble[1]}); waiting for it." if self._trouble else ""
        if self._refused and not note:
            note = f"A worker cannot do the job ({self._refused[1]}); trying again."
        return Snapshot(
            tally,
            read,
            total,
            self._feed is None or self._feed.finished,
            len(self._outbox),
            self._outbox.waiting,
            self._lane.state.state,
            self._lane.quota_use,
            note or self._lane.note,
            self._resumed,
            self._retry.rows if self._retry else 0,
            self._ledger.left_to_retry,
        )

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a request to stop in order; the second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: object) -> None:
            if self._interrupt.is_set():
                raise Interrupted
            self._interrupt.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
