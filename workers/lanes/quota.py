"""What a process has learnt of each quota: how much to hold, bytes a token, tokens an answer. In memory, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.workers.lanes.tokens import CompletionMean, TokenRatio
from penstock.workers.lanes.window import LaneWindow


@dataclass
class QuotaStats:
    """What was learnt of one quota.

    Args:
        window: how many of its messages to hold.
        ratio: bytes a token.
        completion: tokens of an answer.
    """

    window: LaneWindow = field(default_factory=LaneWindow)
    ratio: TokenRatio = field(default_factory=TokenRatio)
    completion: CompletionMean = field(default_factory=CompletionMean)


class QuotaTable:
    """What was learnt, by quota. Read by the thread that takes messages and by the event loop that sends requests."""

    def __init__(self) -> None:
        self._stats: dict[str, QuotaStats] = {}

    def __len__(self) -> int:
        return len(self._stats)

    def of(self, quota: str) -> QuotaStats:
        """Return what was learnt of a quota; nothing yet for a new one."""
        found = self._stats.get(quota)
        return found if found is not None else self._stats.setdefault(quota, QuotaStats())

    def evict(self, keep: Callable[[str], bool]) -> None:
        """Forget quotas that are gone; ``keep`` tells which stay."""
        for quota in [known for known in self._stats if not keep(known)]:
            del self._stats[quota]
