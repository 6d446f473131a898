"""How much may be outstanding: enough to keep the lane full, little enough to keep the broker's memory small. Pure.

It is also how jobs share a lane. The lane serves bulk work in the order of its coming, so that each job gets of it what
it has outstanding of all that is outstanding: windows in proportion to the jobs' weights share it by weight, in
tokens where these are limited, else in requests (Little's law: the wait is the same for all).
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.endpoints.endpoint import RateLimit
from penstock.workers.lanes.tokens import BYTES_PER_TOKEN

FIRST, MOST = 32, 2048
LEAST = 4
MOST_BYTES = 192 * 1024 * 1024
#: Seconds of a lane's tokens that a job of weight 1 has outstanding.
SHARE_S = 8.0
_ASSUMED_DIMENSIONS = 1536


@dataclass
class SendWindow:
    """The window of one job.

    Args:
        batches: how many may be outstanding now; grows while the lane runs dry.
        share: bytes of text that may be outstanding on a lane whose tokens are limited, None elsewhere; grows too.
        dimensions: length of the vectors, once it is known.
    """

    batches: int = FIRST
    share: float | None = None
    dimensions: int = _ASSUMED_DIMENSIONS
    outstanding: int = 0
    texts: int = 0
    bytes: int = 0

    def has_room(self) -> bool:
        """Whether one more batch may be sent."""
        if self.outstanding < LEAST:
            return True
        held = self.bytes + 4 * self.texts * self.dimensions
        return not self._full() and held < MOST_BYTES

    def _full(self) -> bool:
        return self.outstanding >= self.batches or (self.share is not None and self.bytes >= self.share)

    def sent(self, texts: int, size: int) -> None:
        """Note a batch of ``texts`` texts and ``size`` bytes."""
        self.outstanding += 1
        self.texts += texts
        self.bytes += size

    def done(self, texts: int, size: int) -> None:
        """Note that its result has been fetched."""
        self.outstanding -= 1
        self.texts -= texts
        self.bytes -= size

    def look(self, waiting: int) -> None:
        """Learn from the queue's length: a full window with nothing waiting means that workers could take more."""
        if waiting == 0 and self._full():
            self.batches = min(MOST, self.batches + max(1, self.batches // 2))
            self.share = None if self.share is None else self.share * 1.5


def window_of(limit: RateLimit, weight: float = 1.0) -> SendWindow:
    """Return the window of a job.

    Args:
        limit: the endpoint's configured limits.
        weight: its share of the lane against other jobs; 2 gets twice what 1 gets.
    """
    if limit.tokens_per_minute:
        return SendWindow(MOST, weight * SHARE_S * limit.tokens_per_minute / 60 * BYTES_PER_TOKEN)
    return SendWindow(max(LEAST, min(MOST, round(FIRST * weight))))
