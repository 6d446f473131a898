"""The typed front of the scripts in ``lua``: one atomic step per call, on the clock of the Redis server.

Pacing is GCRA: a lane's schedule says when its next request may be sent; a reservation takes the next place on it, for
requests and tokens together or not at all, and answers how long to wait until then. What a dead worker had reserved
lies in the past a moment later, so nothing can leak. A place is reserved at most ``AHEAD_S`` before it comes.

On the rare answers that change a limit the scripts give a signal back; what it teaches is found here in Python
(``learning``) and written by a second call, unless another worker has learnt meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from operator import add
from typing import Any, Literal

import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.errors import FormatTooNew
from penstock.config.redis import text
from penstock.workers.lanes.clock import ServerClock
from penstock.workers.lanes.learning import lesson_of
from penstock.workers.lanes.scripts import (
    DISPATCH,
    RESERVE,
    by_name,
    call,
    run_blocking,
    script_of,
    translated,
)
from penstock.workers.lanes.signals import Dimension, parse_known, parse_signal
from penstock.workers.lua import async_script

logger = logging.getLogger(__name__)


#: Seconds before its time at which a place may be reserved.
AHEAD_S = 0.15
#: Share of a limit that is used. What is left absorbs the jitter between our clock's ticks and the server's.
PACE = 0.993
#: Seconds by which a late sender may catch up with the schedule. Less than (1 - PACE) of a 10 s window,
#: so that catching up never shows in one.
SLACK_S = 0.05
#: Seconds by which a request may be sent late and be made up for: about what PACE leaves free in a window of 10 s.
LATE_S = 0.05
#: Below this many requests a minute nothing is caught up: the server may allow no burst at all.
STRICT_BELOW = 1300
#: Seconds by which a worker's first request may come late, for it has a connection to make; strict lanes allow for it.
FIRST_S = 0.05
#: Share of the time taken by interactive work that bulk work is owed.
BULK_SHARE = 0.1
#: Parts of a plain answer; the signals and what is known follow, where there is something to learn.
ANSWER = 7
#: How often a lesson is written before it is given up: each time another worker had learnt meanwhile.
WRITES = 3
#: How much of a new round trip's time is taken in; the longest, in seconds, that is: a broker that was away is not far.
RTT_SMOOTHING, LONGEST_RTT_S = 0.1, 1.0


@dataclass
class UsageReport:
    """What has come of requests since the last call; it rides on the next one.

    Args:
        ok: requests that were accepted.
        fresh: those of them that were sent since the cool-down number ``seq`` began, the last that this worker knows.
        tokens: tokens that they used.
        correction: milliseconds by which the tokens' schedule moves: what was used less what was reserved.
        places, place_tokens: requests, and their tokens, that were reserved and not sent.
        late: milliseconds by which requests were sent so late that those after them came too close.
        seq: number of a cool-down; what was fresh before it is not after it.
    """

    ok: int = 0
    fresh: int = 0
    tokens: float = 0.0
    correction: float = 0.0
    places: int = 0
    place_tokens: float = 0.0
    late: float = 0.0
    seq: int = 0

    def __bool__(self) -> bool:
        return any(self.values()[:-1])

    def values(self) -> tuple[float, ...]:
        """Return the fields in order."""
        return tuple(vars(self).values())

    def arguments(self) -> dict[str, float]:
        """Return what the scripts take: by name, zeros left out."""
        return {f"usage.{name}": value for name, value in vars(self).items() if value}

    def __add__(self, other: UsageReport) -> UsageReport:
        total = UsageReport(*map(add, self.values(), other.values()))
        total.late = max(self.late, other.late)  # one stall makes many late
        total.seq = max(self.seq, other.seq)
        total.fresh = sum(each.fresh for each in (self, other) if each.seq == total.seq)
        return total


@dataclass(frozen=True)
class Slot:
    """The answer to a reservation.

    Args:
        granted: whether a place was reserved.
        closed: the lane is parked or paused: no place until somebody acts.
        wait_s: seconds from now until the place, or until it is worth asking again; below 0 where this was read late.
        seq: number of the lane's current cool-down; goes back to it with the news of a 429.
        state, why: the lane's state ("", "paused", "parked", "probing") and its reason.
        cool_s: seconds that the lane goes on cooling.
    """

    granted: bool
    closed: bool
    wait_s: float
    seq: int
    state: str
    why: str
    cool_s: float


def strict(limit: RateLimit) -> bool:
    """Tell whether a lane's requests are so few that a server may well allow no burst of them."""
    return 0 < (limit.requests_per_minute or 0) * PACE < STRICT_BELOW


def paced(limit: float | None) -> float:
    """Return the pace for a configured limit per minute, 0 for none."""
    return limit * PACE if limit else 0.0


class Limiter:
    """The limiter as a worker's event loop uses it.

    Args:
        client: asyncio client of the Redis that holds the lanes.
        prefix: prefix of all keys.
        clock_ms: fixed time for tests, 0 for the server's clock.

    Every method raises ``FormatTooNew`` for a lane that a newer version has written.
    """

    #: Seconds to the broker and back, smoothed.
    rtt_s = 0.0

    def __init__(self, client: redis.asyncio.Redis, prefix: str, clock_ms: float = 0) -> None:
        self._prefix = prefix
        self._scripts = {name: async_script(client, name) for name in (RESERVE, DISPATCH)}
        self._clock = None if clock_ms else ServerClock()
        self.clock_ms = clock_ms

    async def reserve(
        self,
        quota: str,
        limit: RateLimit,
        tokens: float,
        *,
        bulk: bool = False,
        ahead_s: float = AHEAD_S,
        report: UsageReport | None = None,
        operations: int = 0,
        lease: str = "",
        lease_s: float = 0.0,
    ) -> Slot:
        """Reserve the next place on the schedule.

        Args:
            quota: the quota's name.
            limit: the endpoint's configured limits, per minute.
            tokens: estimate of what the request will be charged.
            bulk: whether it is bulk work.
            ahead_s: seconds before its time at which the place may be reserved.
            report: what has come of earlier requests.
            operations: most operations in flight (images), 0 for no such limit.
            lease, lease_s: name of the operation, and the seconds after which it counts as gone.
        """
        arguments = {**_configured(limit), "tokens": tokens, "bulk_share": BULK_SHARE, "ahead_ms": ahead_s * 1000}
        if not strict(limit):
            arguments["slack_ms"] = SLACK_S * 1000
        if bulk:
            arguments["bulk"] = 1
        if operations:
            arguments |= {"operations": operations, "lease": lease, "lease_ms": lease_s * 1000}
        answer = await self._run(quota, "reserve", arguments | (report.arguments() if report else {}))
        if len(answer) > ANSWER:
            answer = await self._learn_first(quota, answer, arguments)
        return _slot(answer, self._clock)

    async def report(
        self, quota: str, report: UsageReport, header_requests: float = 0.0, header_tokens: float = 0.0
    ) -> Slot:
        """Tell of requests that went well. ``header_*``: limits in the headers, 0 for nothing."""
        headers = {"requests.header_limit": header_requests, "tokens.header_limit": header_tokens}
        return await self._call(quota, "report", headers | report.arguments())

    async def refuse(
        self, quota: str, seq: int, delay_s: float, dimension: Dimension, limit: RateLimit, *, named: bool = True
    ) -> bool:
        """Tell of a 429. Returns whether it counts; a stale one changes nothing.

        Args:
            quota: the quota's name.
            seq: the slot's, by which a stale one is known.
            delay_s: seconds for which the whole lane cools.
            dimension: which limit was hit. A server's lack of capacity teaches nothing of our limits.
            limit: the configured limits.
            named: whether the server named the delay; one that we made up grows while refusals go on.
        """
        arguments = {"seq": seq, "delay_ms": delay_s * 1000, "named": int(named), "dimension": dimension}
        return (await self._call(quota, "refuse", _configured(limit) | arguments)).granted

    async def fail(self, quota: str, rest_s: float, threshold: int) -> Slot:
        """Tell of an attempt that got no good answer: every ``threshold`` in a row rest the lane for ``rest_s``."""
        return await self._call(quota, "fail", {"rest_ms": rest_s * 1000, "threshold": threshold})

    async def park(self, quota: str, why: str, by: str, version: int) -> Slot:
        """Park the lane. ``by`` and ``version`` are the endpoint's: a changed endpoint unparks it."""
        return await self._call(quota, "park", {"why": why, "by": by, "version": version})

    async def release(self, quota: str, lease: str) -> None:
        """Tell that an operation in flight has ended."""
        await self._call(quota, "release", {"lease": lease})

    async def _call(self, quota: str, operation: str, arguments: Mapping[str, Any]) -> Slot:
        answer = await self._run(quota, operation, arguments)
        if len(answer) > ANSWER:
            await self._learn(quota, answer, arguments)
        return _slot(answer, self._clock)

    async def _learn_first(self, quota: str, answer: list[Any], arguments: Mapping[str, Any]) -> list[Any]:
        """Learn from a reservation's report, and reserve by the new limits. The report has been taken in by then."""
        await self._learn(quota, answer, arguments)
        try:
            return await self._run(quota, "reserve", arguments)
        except (redis.RedisError, OSError):
            return answer  # not now; who asks again sees that the broker is away

    async def _learn(self, quota: str, answer: list[Any], arguments: Mapping[str, Any]) -> None:
        """Write what an answer's signals teach. What cannot be written is given up: the next refusal teaches."""
        signals = [parse_signal(text(kind), by_name(values)) for kind, *values in answer[ANSWER]]
        known = parse_known(by_name(answer[ANSWER + 1]))
        try:
            for _ in range(WRITES):
                lesson = lesson_of(signals, known)
                if not lesson:
                    return
                configured = {name: value for name, value in arguments.items() if name.endswith(".configured")}
                written = await self._run(quota, "learn", configured | lesson)
                if written[0] == 1:
                    return
                known = parse_known(by_name(written[ANSWER + 1]))
        except (redis.RedisError, OSError) as exc:
            logger.warning("lane %s: what a refusal taught could not be written (%s)", quota, exc)

    async def _run(self, quota: str, operation: str, arguments: Mapping[str, Any]) -> list[Any]:
        keys, args = call(self._prefix, quota, operation, arguments)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer: list[Any] = await self._scripts[script_of(operation)](keys=keys, args=args, clock_ms=self.clock_ms)
        except redis.ResponseError as exc:
            raise translated(exc, quota) from exc
        self.rtt_s += (min(loop.time() - began, LONGEST_RTT_S) - self.rtt_s) * RTT_SMOOTHING
        return answer


def change_lane(
    client: redis.Redis, prefix: str, quota: str, change: Literal["paused", "parked", "resume"], why: str = ""
) -> None:
    """Pause, park or resume a lane from a command, at once for every worker."""
    operation = {"paused": "pause", "parked": "park", "resume": "resume"}[change]
    run_blocking(client, prefix, quota, operation, {"why": why, "by": "", "version": 0})


def unpark_changed(client: redis.Redis, prefix: str, endpoint: Endpoint) -> None:
    """Let one request try again if the endpoint parked its lane and was changed since."""
    changed = {"by": endpoint.inference_id, "version": endpoint.version}
    try:
        run_blocking(client, prefix, endpoint.quota, "endpoint_changed", changed)
    except FormatTooNew as exc:
        logger.error("%s", exc)  # who sends on it will be told; the other lanes go on


def _configured(limit: RateLimit) -> dict[str, Any]:
    return {
        "requests.configured": paced(limit.requests_per_minute),
        "tokens.configured": paced(limit.tokens_per_minute),
    }


def _slot(answer: list[Any], clock: ServerClock | None = None) -> Slot:
    verdict, wait, seq, state, why, cool, now = answer[:ANSWER]
    lag_s = clock.lag(float(now) / 1000, time.monotonic()) if clock else 0.0
    wait_s = float(wait) / 1000 - lag_s
    return Slot(verdict == 1, verdict == -1, wait_s, int(seq), text(state), text(why), float(cool) / 1000)
