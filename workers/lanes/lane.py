"""A lane inside one worker process: who is next, and when. Lives on the worker's event loop.

Requests ask for a ``slot``; one task a lane reserves their places in order, interactive ones first, and wakes each when
its place has come. What it learns from answers rides on the next reservation, so that a request costs one round trip.
News of a cool-down or of parking made by another process (``Lanes`` hears it) holds back those still asleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

import redis

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.errors import FormatTooNew
from penstock.workers.lanes.fair_queue import FairQueue, Permit, Waiter
from penstock.workers.lanes.limiter import FIRST_S, LATE_S, Limiter, Slot, UsageReport, paced, strict
from penstock.workers.lanes.outcome import HeaderLimits, Outcome, OutcomeKind
from penstock.workers.lanes.quota import QuotaStats
from penstock.workers.lanes.reasons import dimension, parking_reason
from penstock.workers.lanes.tokens import TokenRatio
from penstock.workers.lanes.window import LaneWindow

logger = logging.getLogger(__name__)

#: A lane that stays closed for longer than this hands its messages back to the broker, in seconds.
HAND_BACK_S = 2.0
#: Idle time after which what was learnt is sent without waiting for a reservation, in seconds.
FLUSH_S = 0.25
#: Attempts without a good answer, in a row over all workers, that rest the lane, and for how many seconds.
BREAKER, REST_S = 12, 1.0
#: Reservations under way at most, and requests a second that a lane without a limit is taken to need.
MOST_UNDER_WAY, FAST = 16, 50.0
#: A limit in the headers is told again after this many seconds; it is forgotten after five times that.
REPEAT_S = 60.0
#: How many times lower than the configured limit a header may go while nothing is being refused.
ABSURDLY_LOW = 20


class LaneClosed(Exception):
    """Not now: the lane is parked, paused, or cooling for longer than a worker holds messages.

    ``state`` is ``full`` where as many operations are in flight as may be. ``attempts`` and ``refusals`` say what had
    been tried, where that is not known otherwise.
    """

    def __init__(self, state: str, why: str, delay_s: float) -> None:
        super().__init__(f"{state}: {why}")
        self.state, self.why, self.delay_s = state, why, delay_s
        self.attempts = self.refusals = 0


class Lane:
    """One quota's lane in this process. Made by ``Lanes``.

    Args:
        limiter: the shared state.
        quota: the quota's name.
        stats: what this process has learnt of the quota.
    """

    def __init__(self, limiter: Limiter, quota: str, stats: QuotaStats | None = None) -> None:
        self.quota = quota
        self.stats = stats or QuotaStats()
        self.served_at = float("-inf")
        self._limiter = limiter
        self._queue, self._asleep = FairQueue(), dict[Waiter, None]()  # in order
        self._report = UsageReport()
        self._header_limits: tuple[float, float] = (0.0, 0.0)
        self._header_at = self._refused_at = float("-inf")
        self._mean_tokens = 0.0
        self._seq = 0
        self._cold = True
        self._reserving: asyncio.Task[None] | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def window(self) -> LaneWindow:
        """How many messages of the lane to hold."""
        return self.stats.window

    @property
    def ratio(self) -> TokenRatio:
        """Bytes a token."""
        return self.stats.ratio

    @property
    def idle(self) -> bool:
        """Whether nobody waits in it and nothing is left to report."""
        reserving = self._reserving is not None and not self._reserving.done()
        return not (reserving or self._queue.head() or self._asleep or self._report or self._tasks)

    async def slot(
        self,
        endpoint: Endpoint,
        tokens: Callable[[], float],
        *,
        bulk: bool = False,
        operations: int = 0,
        lease: str = "",
        lease_s: float = 0.0,
        wait_s: float | None = None,
    ) -> Permit:
        """Wait for a permit to send one request.

        Args:
            endpoint: whose limits apply.
            tokens: says how many tokens the request is estimated at, when its turn comes.
            bulk: bulk work waits behind interactive work.
            operations: most operations in flight, 0 for no limit.
            lease, lease_s: the operation's name and how long it may take, in seconds.
            wait_s: seconds to wait for a place among the operations at most.

        Raises:
            LaneClosed: the lane is parked or paused, or cools for longer than ``HAND_BACK_S``; or it is ``full``.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(tokens, endpoint, bulk, loop.create_future(), operations, lease, lease_s)
        if bulk or operations or not self._overtake(waiter):
            self._queue.of(waiter).append(waiter)
        self._changed.set()
        self._keep_reserving()
        try:
            async with asyncio.timeout(wait_s):
                return await waiter.ready
        except TimeoutError:
            raise LaneClosed("full", "as many operations are in flight as may be", wait_s or 0.0) from None
        finally:
            self._forget(waiter)

    def give_back(self, permit: Permit) -> None:
        """Take back a permit that is not used."""
        self._report += UsageReport(places=1, place_tokens=permit.tokens)
        self._flush_later()

    def settle(self, permit: Permit, size: int, used: float, latency_s: float, made: float = 0.0) -> None:
        """Take in a good answer: what it was charged, and how long it took.

        Args:
            permit: the request's.
            size: UTF-8 bytes that were sent as input.
            used: tokens of the input by the provider's ``usage``; 0 when it said nothing.
            latency_s: seconds from sending to answer.
            made: tokens that it charged beyond those of the input: a completion's own.
        """
        self.served_at = time.monotonic()
        self.window.observe(latency_s)
        sensible = self.ratio.learn(size, used)
        charged = used + made if sensible else permit.tokens
        correction = self._correction(charged - permit.tokens, permit.endpoint)
        self._report += UsageReport(1, 1, charged, correction, seq=permit.seq)
        self._mean_tokens += (charged - self._mean_tokens) * (0.2 if self._mean_tokens else 1.0)
        self.update_rate(permit.endpoint)
        self._flush_later()

    def learn(self, endpoint: Endpoint, limits: HeaderLimits) -> None:
        """Take in what an answer's headers say of the limits; they can only lower the configured ones."""
        configured = endpoint.rate_limit
        stated = (
            self._believed(limits.limit_requests, limits.remaining_requests, configured.requests_per_minute),
            self._believed(limits.limit_tokens, limits.remaining_tokens, configured.tokens_per_minute),
        )
        stale = time.monotonic() - self._header_at > REPEAT_S
        if any(stated) and (stated != self._header_limits or stale):
            self._header_limits, self._header_at = stated, time.monotonic()
            self._spawn(self._tell(*(paced(limit) for limit in stated)))

    async def refused(self, permit: Permit, outcome: Outcome, delay_s: float) -> None:
        """Take in a 429: the lane cools once, for every worker."""
        self._refused_at = time.monotonic()
        self.learn(permit.endpoint, outcome.limits)
        limit, named = permit.endpoint.rate_limit, outcome.delay_s is not None
        async with self._best_effort():
            if await self._limiter.refuse(self.quota, permit.seq, delay_s, dimension(outcome), limit, named=named):
                logger.warning("lane %s cools for %.2f s: %s", permit.endpoint.inference_id, delay_s, outcome.message)
            await self.refresh()

    async def failed(self, outcome: Outcome) -> None:
        """Take in an attempt without a good answer; many in a row rest the lane."""
        if outcome.kind in (OutcomeKind.SERVER_ERROR, OutcomeKind.NOT_SENT, OutcomeKind.NO_ANSWER):
            async with self._best_effort():
                await self._limiter.fail(self.quota, REST_S, BREAKER)

    async def park(self, endpoint: Endpoint, outcome: Outcome) -> str:
        """Park the lane. Returns the reason, with what to do next."""
        why = parking_reason(endpoint, outcome)
        async with self._best_effort():
            await self._limiter.park(self.quota, why, endpoint.inference_id, endpoint.version)
        logger.error("lane %s is parked: %s", endpoint.inference_id, why)
        self._close_all(LaneClosed("parked", why, 0.0))
        return why

    async def release(self, lease: str) -> None:
        """An operation in flight has ended."""
        async with self._best_effort():
            await self._limiter.release(self.quota, lease)

    async def refresh(self) -> None:
        """Look at the lane's shared state; hold back what is asleep if it has closed or begun a cool-down."""
        slot = await self._tell()
        if slot.state in ("paused", "parked"):
            self._close_all(LaneClosed(slot.state, slot.why, 0.0))
        else:
            self._note(slot.seq)
        self._changed.set()

    # Inside -----------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _best_effort(self) -> AsyncIterator[None]:
        """What the others are told is lost while the broker is away; the work itself goes on."""
        try:
            yield
        except (redis.RedisError, OSError) as exc:
            logger.warning("lane %s: the other workers could not be told (%s)", self.quota, exc)

    async def _reserve_all(self) -> None:
        """Reserve for those who wait, in order: one at a time, or several where the broker is far away."""
        asking: set[asyncio.Task[float]] = set()
        while True:
            if not asking and self._width() == 1 and (waiter := self._queue.take()) is not None:
                pause_s = await self._ask(waiter)
            else:
                while len(asking) < self._width() and (waiter := self._queue.take()) is not None:
                    asking.add(asyncio.get_running_loop().create_task(self._ask(waiter)))
                if not asking:
                    return
                done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                pause_s = max(task.result() for task in done)
            if pause_s > 0:
                await self._pause(pause_s)

    def _width(self) -> int:
        """How many reservations may be under way: as many as the lane needs while one goes to the broker and back."""
        return min(MOST_UNDER_WAY, 1 + int(self._limiter.rtt_s * (self.window.rate or FAST)))

    async def _ask(self, waiter: Waiter) -> float:
        """Ask for a request's place. Returns the seconds after which it is worth asking again; 0 when that is done."""
        try:
            slot = await self._reserve(waiter)
        except (redis.RedisError, OSError) as exc:
            logger.warning("lane %s: the broker does not answer (%s)", self.quota, exc)
            self._queue.put_first(waiter)
            return 0.5
        except FormatTooNew as exc:  # no waiting helps
            self._queue.put_first(waiter)
            self._fail_all(exc)
            return 0.0
        self._note(slot.seq)
        if slot.granted:
            self._grant(waiter, slot)
            return 0.0
        self._queue.put_first(waiter)
        if slot.closed:
            self._close_all(LaneClosed(slot.state, slot.why, 0.0))
        elif slot.cool_s > HAND_BACK_S:
            self._close_all(LaneClosed("cooling", slot.why, slot.cool_s))
        else:
            return max(0.002, slot.wait_s - self._ahead_s(waiter) * 0.9)
        return 0.0

    def _ahead_s(self, waiter: Waiter) -> float:
        """Seconds before its time at which a request may reserve its place: the answer must be here before it."""
        return waiter.ahead_s + self._limiter.rtt_s

    async def _reserve(self, waiter: Waiter) -> Slot:
        tokens = waiter.tokens()
        waiter.tokens = lambda: tokens
        report = self._take_report()
        try:
            return await self._limiter.reserve(
                self.quota, waiter.endpoint.rate_limit, tokens, bulk=waiter.bulk, ahead_s=self._ahead_s(waiter),
                report=report, operations=waiter.operations, lease=waiter.lease, lease_s=waiter.lease_s,
            )  # fmt: skip
        except BaseException:
            self._report += report
            raise

    def _grant(self, waiter: Waiter, slot: Slot) -> None:
        self._queue.served(waiter)
        waiter.permit = Permit(waiter.tokens(), slot.seq, waiter.endpoint)
        if waiter.ready.done():  # it has gone meanwhile
            self.give_back(waiter.permit)
            return
        if self._cold:
            self._cold = False
            if strict(waiter.endpoint.rate_limit):
                self._report += UsageReport(late=FIRST_S * 1000)
        if slot.wait_s <= 0.0005:
            self._note_late(-slot.wait_s)
            self._wake(waiter)
        else:
            self._sleep(waiter, asyncio.get_running_loop().time() + slot.wait_s)

    def _sleep(self, waiter: Waiter, until: float) -> None:
        self._asleep[waiter] = None
        waiter.timer = asyncio.get_running_loop().call_at(until, self._wake, waiter)

    def _wake(self, waiter: Waiter) -> None:
        if waiter in self._asleep and waiter.timer is not None:
            self._note_late(asyncio.get_running_loop().time() - waiter.timer.when())
        self._asleep.pop(waiter, None)
        if not waiter.ready.done() and waiter.permit is not None:
            waiter.ready.set_result(waiter.permit)

    def _note_late(self, late_s: float) -> None:
        if late_s > LATE_S:
            self._report += UsageReport(late=(late_s - LATE_S) * 1000)

    def _overtake(self, waiter: Waiter) -> bool:
        """Give interactive work the place that bulk work of this process sleeps for; that goes to the head of its line.

        False where there is no such place, or none with tokens enough.
        """
        tokens = waiter.tokens()
        limited = bool(waiter.endpoint.rate_limit.tokens_per_minute)
        places = [
            (each.timer.when(), each)
            for each in self._asleep
            if each.bulk
            and not each.owned
            and each.timer
            and each.permit
            and (not limited or each.permit.tokens >= tokens)
        ]
        if not places:
            return False
        when, bulk = min(places, key=lambda place: place[0])
        permit = bulk.permit
        self._queue_again(bulk)
        self._queue.served(waiter)
        waiter.permit = permit and Permit(permit.tokens, permit.seq, waiter.endpoint)
        self._sleep(waiter, when)
        return True

    def _queue_again(self, waiter: Waiter) -> None:
        self._asleep.pop(waiter, None)
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.timer = waiter.permit = None
        self._queue.of(waiter).appendleft(waiter)

    def _note(self, seq: int) -> None:
        """Put all that sleep back in line when a cool-down has begun: the schedule began anew with it."""
        if seq == self._seq:
            return
        self._seq = seq
        for waiter in reversed(list(self._asleep)):  # each goes to the head of its line: the first comes last
            self._give_place_back(waiter)
            self._queue_again(waiter)
        self._keep_reserving()

    def _give_place_back(self, waiter: Waiter) -> None:
        if waiter.permit is not None:
            self._report += UsageReport(places=1, place_tokens=waiter.permit.tokens)

    def _keep_reserving(self) -> None:
        if self._queue.head() is not None and (self._reserving is None or self._reserving.done()):
            self._reserving = asyncio.get_running_loop().create_task(self._reserve_all(), name=f"lane-{self.quota}")

    def _close_all(self, reason: LaneClosed) -> None:
        for waiter in [*self._asleep, *self._queue.drain()]:
            self._give_place_back(waiter)
            if waiter.timer is not None:
                waiter.timer.cancel()
            if not waiter.ready.done():
                waiter.ready.set_exception(LaneClosed(reason.state, reason.why, reason.delay_s))
        self._asleep.clear()

    def _fail_all(self, error: FormatTooNew) -> None:
        for waiter in [*self._asleep, *self._queue.drain()]:
            if waiter.timer is not None:
                waiter.timer.cancel()
            if not waiter.ready.done():
                waiter.ready.set_exception(FormatTooNew(*error.args))
        self._asleep.clear()

    def _forget(self, waiter: Waiter) -> None:
        self._asleep.pop(waiter, None)
        if waiter.timer is not None:
            waiter.timer.cancel()
        with contextlib.suppress(ValueError):
            self._queue.of(waiter).remove(waiter)

    async def _pause(self, seconds: float) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.002, seconds))

    def _correction(self, difference: float, endpoint: Endpoint) -> float:
        """Return the schedule's correction in milliseconds for tokens charged otherwise than reserved."""
        tpm = paced(endpoint.rate_limit.tokens_per_minute)
        return difference * 60_000 / tpm if tpm else 0.0

    def update_rate(self, endpoint: Endpoint) -> None:
        """Say, for the window, how many requests a second the endpoint's limits allow."""
        rates = []
        if endpoint.rate_limit.requests_per_minute:
            rates.append(endpoint.rate_limit.requests_per_minute / 60)
        if endpoint.rate_limit.tokens_per_minute and self._mean_tokens:
            rates.append(endpoint.rate_limit.tokens_per_minute / 60 / self._mean_tokens)
        self.window.rate = min(rates) if rates else None

    def _believed(self, limit: float | None, remaining: float | None, configured: float | None) -> float:
        """Return a limit worth believing, 0 for none: positive, not below what is said to remain, and not absurdly
        low unless the server has refused something of late."""
        if limit is None or limit <= 0 or remaining is None or not 0 <= remaining <= limit:
            return 0.0
        if time.monotonic() - self._refused_at > 60 and limit * ABSURDLY_LOW < (configured or 0):
            return 0.0
        return limit

    async def _tell(self, *header_limits: float) -> Slot:
        """Tell what has come of requests. While the broker is away it is kept, and told later."""
        report = self._take_report()
        try:
            return await self._limiter.report(self.quota, report, *header_limits)
        except BaseException:
            self._report += report
            self._flush_later()
            raise

    def _take_report(self) -> UsageReport:
        report, self._report = self._report, UsageReport()
        return report

    def _flush_later(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if self._report:
            self._spawn(self._tell())

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("lane %s: what was learnt could not be told (%s)", self.quota, task.exception())
