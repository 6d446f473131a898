"""The clock of the Redis server, as seen from this process."""

from __future__ import annotations

#: The clocks may drift apart by so much, in seconds a second.
DRIFT = 0.0001
#: Answers that are all later than this, for so long, show a step of one of the clocks; times in seconds.
STEP_S, FOR_S = 0.05, 1.0


class ServerClock:
    """Tells how late an answer is.

    A wait that the server names begins when the server says so. To count it from the time at which its answer is read
    would add all that the answer waited for, on the wire and for a busy event loop: some tenths of a millisecond, or
    two. The quickest of the answers shows how the clocks stand to each other (a minimum filter, as in NTP).
    """

    def __init__(self) -> None:
        self._least = float("inf")
        self._read_at = 0.0
        self._late_since = float("inf")

    def lag(self, answered_at: float, read_at: float) -> float:
        """Return by how many seconds longer than the quickest an answer took.

        Args:
            answered_at: when the server gave the answer, by its clock, in seconds.
            read_at: when it was read here, by the monotonic clock, in seconds.
        """
        offset = read_at - answered_at
        least = min(offset, self._least + DRIFT * (read_at - self._read_at))
        self._late_since = min(self._late_since, read_at) if offset - least > STEP_S else float("inf")
        if offset - least > FOR_S or read_at - self._late_since > FOR_S:
            least = offset
        self._least, self._read_at = least, read_at
        return offset - least
