"""What a run shows to whoever watches it. Plain data; how it is shown is the watcher's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.config.endpoints.endpoint import RateLimit
from penstock.tasks.backfill.ledger.ledger import Tally


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands.

    Args:
        tally: counts, with what is not committed yet.
        read, total: how far the source was read, in its own unit; ``total`` None where it is not known.
        read_whole: whether the source was read to its end.
        outstanding: batches sent and not done; ``waiting`` of them still in the queue (of all jobs).
        lane: the lane's state: ``open``, ``cooling``, ``paused``, ``parked`` or ``probing``.
        quota_use: share of the quota used over the last minute, by all who use it; None for a lane without limits.
        note: something that the user should know now, "" for nothing.
        resumed: whether an earlier run had begun the job.
        retrying: failed rows that this run tries again, ``left_to_retry`` of them not read yet; 0 in any other run.
    """

    tally: Tally
    read: int = 0
    total: int | None = None
    read_whole: bool = False
    outstanding: int = 0
    waiting: int = 0
    lane: str = "open"
    quota_use: float | None = None
    note: str = ""
    resumed: bool = False
    retrying: int = 0
    left_to_retry: int = 0


Watch = Callable[[Snapshot], None]


def quota_use(limit: RateLimit, requests: float, tokens: float, seconds: float) -> float | None:
    """Return the share of a quota that was used: of requests or of tokens, whichever is more.

    Args:
        limit: per minute.
        requests, tokens: used.
        seconds: within so long.
    """
    minutes = seconds / 60
    shares = [
        used / (allowed * minutes)
        for used, allowed in ((requests, limit.requests_per_minute), (tokens, limit.tokens_per_minute))
        if allowed and minutes > 0
    ]
    return round(max(shares), 4) if shares else None
