"""The typed front of ``limiter.lua``: one atomic step per call, on the clock of the Redis server.

Pacing is GCRA: a lane's schedule says when its next request may be sent; a reservation takes the next place on it, for
requests and tokens together or not at all, and answers how long to wait until then. What a dead worker had reserved
lies in the past a moment later, so nothing can leak. A place is reserved at most ``AHEAD_S`` before it comes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from operator import add
from typing import Any, Literal

import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.names import flight_key, lane_key, signal_channel, used_key
from penstock.workers.lanes.clock import ServerClock
from penstock.workers.lua import async_script, script

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

#: Which limit a refusal was about: "" when nobody said, "capacity" when it was none, but a server too busy.
Dimension = Literal["requests", "tokens", "capacity", ""]


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
        """Return the fields in order, as the script takes them."""
        return tuple(vars(self).values())

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


def _slot(answer: Any, clock: ServerClock | None = None) -> Slot:
    go, wait, seq, state, why, cool, now = [part.decode() if isinstance(part, bytes) else part for part in answer]
    lag_s = clock.lag(float(now) / 1000, time.monotonic()) if clock else 0.0
    return Slot(go == 1, go == -1, float(wait) / 1000 - lag_s, int(float(seq)), state, why, float(cool) / 1000)


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
    """

    def __init__(self, client: redis.asyncio.Redis, prefix: str, clock_ms: float = 0) -> None:
        self._prefix = prefix
        self._script = async_script(client, "lanes/limiter")
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
            settled: what has come of earlier requests.
            operations: most operations in flight (images), 0 for no such limit.
            lease, lease_s: name of the operation, and the seconds after which it counts as gone.
        """
        slack = 0.0 if strict(limit) else SLACK_S
        return await self._call(
            quota, "reserve", paced(limit.requests_per_minute), paced(limit.tokens_per_minute), tokens, int(bulk),
            ahead_s * 1000, slack * 1000,
            BULK_SHARE, operations, lease, lease_s * 1000, *(report or UsageReport()).values(),
        )  # fmt: skip

    async def report(
        self, quota: str, report: UsageReport, header_requests: float = 0.0, header_tokens: float = 0.0
    ) -> Slot:
        """Tell of requests that went well. ``said_*``: limits in the headers, 0 for nothing."""
        return await self._call(quota, "report", header_requests, header_tokens, *report.values())

    async def refuse(
        self, quota: str, seq: int, delay_s: float, dimension: Dimension, limit: RateLimit, *, named: bool = True
    ) -> bool:
        """Tell of a 429. Returns whether it was news; stale news changes nothing.

        Args:
            quota: the quota's name.
            seq: the slot's, by which stale news is known.
            delay_s: seconds for which the whole lane cools.
            dimension: which limit was hit. A server's lack of capacity teaches nothing of our limits.
            limit: the configured limits.
            named: whether the server named the delay; one that we made up grows while refusals go on.
        """
        slot = await self._call(
            quota, "refuse", seq, delay_s * 1000, int(named), dimension, paced(limit.requests_per_minute),
            paced(limit.tokens_per_minute),
        )  # fmt: skip
        return slot.granted

    async def fail(self, quota: str, rest_s: float, threshold: int) -> Slot:
        """Tell of an attempt that got no good answer: every ``threshold`` in a row rest the lane for ``rest_s``."""
        return await self._call(quota, "fail", rest_s * 1000, threshold)

    async def park(self, quota: str, why: str, by: str, version: int) -> Slot:
        """Park the lane. ``by`` and ``version`` are the endpoint's: a changed endpoint unparks it."""
        return await self._call(quota, "change", "parked", why, by, version)

    async def release(self, quota: str, lease: str) -> None:
        """Tell that an operation in flight has ended."""
        await self._call(quota, "release", lease)

    async def _call(self, quota: str, operation: str, *arguments: Any) -> Slot:
        keys = [lane_key(self._prefix, quota), used_key(self._prefix, quota), flight_key(self._prefix, quota)]
        args = [operation, self.clock_ms, signal_channel(self._prefix), *arguments]
        return _slot(await self._script(keys=keys, args=args), self._clock)


def change_lane(
    client: redis.Redis, prefix: str, quota: str, change: Literal["paused", "parked", "resume"], why: str = ""
) -> None:
    """Pause, park or resume a lane from a command, at once for every worker."""
    _call(client, prefix, quota, "change", change, why, "", 0)


def unpark_changed(client: redis.Redis, prefix: str, endpoint: Endpoint) -> None:
    """Let one request try again if the endpoint parked its lane and was changed since."""
    _call(client, prefix, endpoint.quota, "unpark", endpoint.inference_id, endpoint.version)


def _call(client: redis.Redis, prefix: str, quota: str, operation: str, *arguments: Any) -> None:
    keys = [lane_key(prefix, quota), used_key(prefix, quota), flight_key(prefix, quota)]
    script(client, "lanes/limiter")(keys=keys, args=[operation, 0, signal_channel(prefix), *arguments])
