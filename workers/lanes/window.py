"""How many messages of a lane one process should hold: rate x latency, bounded. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Seconds of its schedule that a worker holds in advance, so that the next slot always finds a request ready.
HELD_S = 0.3
#: Small interactive calls ride together in one request, so a worker may hold this many while they wait for a slot.
INTERACTIVE = 64
#: Where a lane without limits starts: each good answer allows one message more, which doubles them in a round trip. A
#: server that has limits nobody told us of then refuses a few requests and not all that there is room for.
FIRST = 16
SMOOTHING = 0.2
#: Round trips to the broker for which a message is held beside its request: taking, reserving, storing.
RTTS = 3
#: Latency that is assumed before the first answer, in seconds.
FIRST_GUESS_S = 0.3


@dataclass
class LaneWindow:
    """What this process has seen of a lane.

    Args:
        rate: requests per second that the lane may send, None without a limit and before it is known.
        latency_s: smoothed seconds from sending to answer.
        rtt_s: seconds to the broker and back: a message is taken, reserved for and stored in so many each.
        answers: how many have been seen.
    """

    rate: float | None = None
    latency_s: float = FIRST_GUESS_S
    answers: int = 0
    rtt_s: float = 0.0

    def observe(self, latency_s: float) -> None:
        """Take in one answer's latency, in seconds."""
        self.latency_s += (latency_s - self.latency_s) * (SMOOTHING if self.answers else 1.0)
        self.answers += 1

    def size(self, cap: int) -> int:
        """Messages of bulk work to hold, at most ``cap``."""
        if self.rate is None:
            return min(cap, FIRST + self.answers)
        held_s = self.latency_s * 1.25 + HELD_S + RTTS * self.rtt_s
        wanted = math.ceil(self.rate * held_s) + 1
        return max(2, min(cap, wanted)) if cap > 1 else 1

    def size_interactive(self, cap: int) -> int:
        """Messages of interactive work to hold, at most ``cap``."""
        return max(1, min(cap, max(INTERACTIVE, self.size(cap))))
