"""The arithmetic of quotas as vendors enforce them. Pure: every call is given the time, in seconds, and nothing sleeps.

Four shapes of one limit of L a minute; ``L / 60`` is its rate a second:

``bucket-Ns``   a token bucket that holds N seconds' worth and is full at the start: bursts up to that, then the rate.
                ``bucket-1s`` is how a quantised minute looks ("60,000 a minute may be enforced as 1,000 a second"),
                ``bucket-60s`` how a limit looks whose ``reset`` header says ``6m0s``.
``gcra``        no burst at all: each request is due when what went before is paid, at an even pace.
``fixed-Ns``    a counter for each N seconds of the clock: a full window's worth at once, then nothing till the next.
``sliding-Ns``  no more than a window's worth in any N seconds.

A window's worth is rounded down to whole requests or tokens; where that would be none, the window is as long as one
needs. A cost above the whole capacity (a batch of more tokens than a second's worth) passes when nothing else is owed,
and then is owed in full, so that the rate holds in the long run whatever the sizes are.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass
from typing import Protocol

_EPSILON = 1e-9  # of a request or window, for sums of fractions
_GRACE_S = 1e-6  # a client that waits exactly as long as it was asked to must pass
_WINDOW = re.compile(r"(bucket|fixed|sliding)-(\d+(?:\.\d+)?)s")
_ALIASES = {
    "no-burst": "gcra",
    "none-burst": "gcra",
    "bucket-minute": "bucket-60s",
    "fixed-minute": "fixed-60s",
    "sliding-minute": "sliding-60s",
    "minute": "sliding-60s",
    "window-1s": "fixed-1s",
    "window-10s": "fixed-10s",
}


class Allowance(Protocol):
    """One limit of one kind. ``now`` is in seconds of a clock that never goes back; costs are requests or tokens."""

    per_minute: float
    """What it lets through a minute in the long run."""
    capacity: float
    """What it lets through at once after a rest."""

    def wait(self, now: float, cost: float) -> float:
        """Return the seconds until ``cost`` may pass, 0.0 for at once."""
        ...

    def take(self, now: float, cost: float) -> None:
        """Charge ``cost``, which ``wait`` has let pass."""
        ...

    def punish(self, now: float, cost: float) -> None:
        """Charge a refused request, up to what the capacity holds."""
        ...

    def used(self, now: float) -> float:
        """Return what is charged and not yet given back."""
        ...

    def reset(self, now: float) -> float:
        """Return the seconds until nothing is charged."""
        ...


class Bucket:
    """A token bucket, kept as the moment at which all that was taken will have been given back (GCRA).

    Args:
        per_minute: the rate.
        capacity: what it holds; 0 lets nothing pass until everything before is paid.
    """

    def __init__(self, per_minute: float, capacity: float) -> None:
        self.per_minute = per_minute
        self.capacity = capacity
        self._rate = per_minute / 60
        self._paid_at = -math.inf

    def used(self, now: float) -> float:
        return max(0.0, (self._paid_at - now) * self._rate)

    def wait(self, now: float, cost: float) -> float:
        over = self.used(now) + min(cost, self.capacity) - self.capacity
        wait = over / self._rate
        return wait if wait > _GRACE_S else 0.0

    def take(self, now: float, cost: float) -> None:
        self._paid_at = max(self._paid_at, now) + cost / self._rate

    def punish(self, now: float, cost: float) -> None:
        used = self.used(now)
        self._paid_at = now + max(used, min(used + cost, self.capacity)) / self._rate

    def reset(self, now: float) -> float:
        return max(0.0, self._paid_at - now)


class FixedWindow:
    """A counter that starts again at each multiple of ``seconds``; what passed beyond it is carried over."""

    def __init__(self, per_minute: float, seconds: float) -> None:
        self.capacity, self.seconds = _window(per_minute, seconds)
        self.per_minute = self.capacity * 60 / self.seconds
        self._index = 0
        self._used = 0.0

    def _roll(self, now: float) -> None:
        index = math.floor((now + _GRACE_S) / self.seconds)
        if index > self._index:
            self._used = max(0.0, self._used - self.capacity * (index - self._index))
            self._index = index

    def used(self, now: float) -> float:
        self._roll(now)
        return self._used

    def wait(self, now: float, cost: float) -> float:
        over = self.used(now) + min(cost, self.capacity) - self.capacity
        if over <= _EPSILON:
            return 0.0
        windows = math.ceil(over / self.capacity - _EPSILON)
        return max(0.0, (self._index + windows) * self.seconds - now)

    def take(self, now: float, cost: float) -> None:
        self._roll(now)
        self._used += cost

    def punish(self, now: float, cost: float) -> None:
        used = self.used(now)
        self._used = max(used, min(used + cost, self.capacity))

    def reset(self, now: float) -> float:
        windows = math.ceil(self.used(now) / self.capacity - _EPSILON)
        return max(0.0, (self._index + windows) * self.seconds - now) if windows else 0.0


class SlidingWindow:
    """A log of what passed in the last ``seconds``; a cost above the capacity fills several windows one by one."""

    def __init__(self, per_minute: float, seconds: float) -> None:
        self.capacity, self.seconds = _window(per_minute, seconds)
        self.per_minute = self.capacity * 60 / self.seconds
        self._log: deque[tuple[float, float]] = deque()  # (when it is given back, cost), in order of time
        self._used = 0.0

    def used(self, now: float) -> float:
        while self._log and self._log[0][0] <= now + _GRACE_S:
            self._used -= self._log.popleft()[1]
        if not self._log:
            self._used = 0.0
        return self._used

    def wait(self, now: float, cost: float) -> float:
        over = self.used(now) + min(cost, self.capacity) - self.capacity
        if over <= _EPSILON:
            return 0.0
        for given_back, part in self._log:
            over -= part
            if over <= _EPSILON:
                return given_back - now
        return self.seconds

    def take(self, now: float, cost: float) -> None:
        self._used += cost
        window = 1
        while cost > 0:
            part = min(cost, self.capacity)
            self._log.append((now + window * self.seconds, part))
            cost -= part
            window += 1

    def punish(self, now: float, cost: float) -> None:
        room = self.capacity - self.used(now)
        last = self._log[-1][0] if self._log else 0.0
        if room > 0 and last <= now + self.seconds:
            self.take(now, min(cost, room))

    def reset(self, now: float) -> float:
        self.used(now)
        return self._log[-1][0] - now if self._log else 0.0


def _window(per_minute: float, seconds: float) -> tuple[float, float]:
    """Return a window's whole worth and its length in seconds."""
    worth = math.floor(per_minute * seconds / 60 + _EPSILON)
    return (float(worth), seconds) if worth >= 1 else (1.0, 60 / per_minute)


def is_window(name: str) -> bool:
    """Tell whether ``name`` is a shape of limit that ``allowance`` knows."""
    name = _ALIASES.get(name, name)
    found = _WINDOW.fullmatch(name)
    return name in ("gcra", "none") or (found is not None and float(found[2]) > 0)


def allowance(window: str, per_minute: float, capacity: float | None = None) -> Allowance:
    """Make the limit of ``per_minute`` in the shape that ``window`` names.

    Args:
        window: one of the shapes above, or ``bucket-minute``, ``fixed-minute``, ``sliding-minute``, ``minute``
            (sliding), ``no-burst`` (gcra).
        per_minute: above zero.
        capacity: what a bucket holds, in place of its N seconds' worth.

    Raises:
        ValueError: there is no such shape.
    """
    name = _ALIASES.get(window, window)
    if name == "gcra":
        return Bucket(per_minute, 1.0)
    found = _WINDOW.fullmatch(name)
    if found is None or float(found[2]) == 0:
        raise ValueError(f"no window is called {window!r}: give bucket-1s, gcra, fixed-10s, sliding-60s or their like")
    shape, seconds = found[1], float(found[2])
    if shape == "fixed":
        return FixedWindow(per_minute, seconds)
    if shape == "sliding":
        return SlidingWindow(per_minute, seconds)
    return Bucket(per_minute, max(1.0, per_minute * seconds / 60 if capacity is None else capacity))


@dataclass(frozen=True)
class Refusal:
    """Which limit said no, and the numbers that go into a vendor's message.

    Args:
        kind: ``requests`` or ``tokens``.
        per_minute: the limit.
        used: what is charged of it now.
        requested: what the request would cost.
        wait_s: seconds until the same request would pass both limits, if nothing else comes in between.
    """

    kind: str
    per_minute: float
    used: float
    requested: float
    wait_s: float


@dataclass(frozen=True)
class Gauge:
    """What headers tell of one limit, now: ``per_minute`` and ``capacity`` as configured, ``reset_s`` in seconds."""

    per_minute: float
    capacity: float
    used: float
    reset_s: float


class Quota:
    """Requests and tokens a minute together, all or nothing. ``None`` is no limit of that kind."""

    def __init__(self, requests: Allowance | None, tokens: Allowance | None, charge_failed: bool = False) -> None:
        self.requests = requests
        self.tokens = tokens
        self.charge_failed = charge_failed

    def admit(self, now: float, tokens: float) -> Refusal | None:
        """Charge one request of ``tokens``, or say why not; a refused one is charged too where ``charge_failed``."""
        refusals = []
        for kind, limit, cost in (("requests", self.requests, 1.0), ("tokens", self.tokens, tokens)):
            if limit is not None and (wait := limit.wait(now, cost)) > 0:
                refusals.append(Refusal(kind, limit.per_minute, limit.used(now), cost, wait))
        charge = [(limit, cost) for limit, cost in ((self.requests, 1.0), (self.tokens, tokens)) if limit is not None]
        if not refusals:
            for limit, cost in charge:
                limit.take(now, cost)
            return None
        if self.charge_failed:
            for limit, cost in charge:
                limit.punish(now, cost)
        return max(refusals, key=lambda refusal: refusal.wait_s)

    def gauges(self, now: float) -> dict[str, Gauge]:
        """Return what headers may tell, by ``requests`` and ``tokens``; a kind without a limit is absent."""
        limits = {"requests": self.requests, "tokens": self.tokens}
        return {
            kind: Gauge(limit.per_minute, limit.capacity, limit.used(now), limit.reset(now))
            for kind, limit in limits.items()
            if limit is not None
        }


def quota(
    window: str, rpm: float | None, tpm: float | None, burst: float | None = None, charge_failed: bool = False
) -> Quota:
    """Make the quota of ``rpm`` requests and ``tpm`` tokens a minute in the shape that ``window`` names.

    ``burst`` is the capacity of a request bucket; a token bucket then holds as many seconds' worth as that is.
    The window ``none`` lets everything through.
    """
    if window == "none":
        return Quota(None, None)
    requests = None if rpm is None else allowance(window, rpm, burst)
    token_burst = None if burst is None or not rpm or not tpm else burst / rpm * tpm
    tokens = None if tpm is None else allowance(window, tpm, token_burst)
    return Quota(requests, tokens, charge_failed)
