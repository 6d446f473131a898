"""Those who wait for a lane inside one worker process, in the order in which they are served."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.config.endpoints.endpoint import Endpoint
from penstock.workers.lanes.limiter import AHEAD_S, BULK_SHARE

#: Furthest ahead of its time that a place is reserved, in seconds.
FURTHEST_S = 2.0


@dataclass
class Permit:
    """Leave to send one request. ``seq`` dates it: news of a refusal is stale when a later cool-down has begun."""

    tokens: float
    seq: int
    endpoint: Endpoint


@dataclass(eq=False)
class Waiter:
    """One request that waits for its place on the schedule, and then for the place's time.

    Args:
        tokens: says how many tokens the request is estimated at, when its turn comes.
        endpoint: whose limits apply.
        bulk: bulk work waits behind interactive work.
        ready: gets the permit, or the reason why there is none.
        operations, lease, lease_s: for images, see ``Limiter.reserve``.
        timer, permit: the place, while it sleeps until its time.
        since: when it came, by the monotonic clock.
        owned: bulk work's place that it was owed: interactive work does not take it.
    """

    tokens: Callable[[], float]
    endpoint: Endpoint
    bulk: bool
    ready: asyncio.Future[Permit]
    operations: int = 0
    lease: str = ""
    lease_s: float = 0.0
    timer: asyncio.TimerHandle | None = None
    permit: Permit | None = None
    owned: bool = False
    since: float = field(default_factory=lambda: time.monotonic())  # looked up when called: tests have a clock

    @property
    def ahead_s(self) -> float:
        """Seconds before its time at which this request may reserve its place.

        Workers ask in no order, and one of them could be late each time: the longer a request has waited, the further
        ahead it may reserve, so that its turn comes. Interactive work is let in at once.
        """
        if not self.bulk:
            return FURTHEST_S
        return min(FURTHEST_S, AHEAD_S + (time.monotonic() - self.since) / 2)


@dataclass
class FairQueue:
    """Interactive requests first, each class in the order of coming.

    Bulk work that waits is owed a share of the places that interactive work takes: it is never starved for good.
    """

    interactive: deque[Waiter] = field(default_factory=deque)
    bulk: deque[Waiter] = field(default_factory=deque)
    bulk_credit: float = 0.0

    def of(self, waiter: Waiter) -> deque[Waiter]:
        """Return the part of the line in which a request waits."""
        return self.bulk if waiter.bulk else self.interactive

    @property
    def bulk_is_due(self) -> bool:
        """Whether bulk work is owed a whole place."""
        return self.bulk_credit >= 1 - 1e-9  # sums of a tenth

    def served(self, waiter: Waiter) -> None:
        """Note who was given a place."""
        if waiter.bulk:
            waiter.owned = self.bulk_is_due
            self.bulk_credit -= 1 if waiter.owned else 0
        elif any(not each.ready.done() for each in self.bulk):
            self.bulk_credit += BULK_SHARE

    def head(self) -> Waiter | None:
        """Return who is next, None when nobody waits."""
        for queue in (self.bulk, self.interactive) if self.bulk_is_due else (self.interactive, self.bulk):
            while queue and queue[0].ready.done():
                queue.popleft()
            if queue:
                return queue[0]
        return None

    def take(self) -> Waiter | None:
        """Take who is next out of the queue, None when nobody waits."""
        waiter = self.head()
        if waiter is not None:
            self.of(waiter).popleft()
        return waiter

    def put_first(self, waiter: Waiter) -> None:
        """Let a request wait again, before all of its class that came after it."""
        queue = self.of(waiter)
        place = next((n for n, each in enumerate(queue) if each.since > waiter.since), len(queue))
        queue.insert(place, waiter)

    def drain(self) -> list[Waiter]:
        """Send everybody away and return them."""
        everyone = [*self.interactive, *self.bulk]
        self.interactive.clear()
        self.bulk.clear()
        return everyone
