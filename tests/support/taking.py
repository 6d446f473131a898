"""The script that takes messages, called as a worker's feed calls it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from penstock.config.names import (
    JOB_CLASSES,
    LANE_QUEUES,
    endpoint_quotas_key,
    holder_key,
    lane_key,
    unacked_index_key,
    unacked_key,
    work_key,
)
from penstock.workers.broker.feed import FIRST_MESSAGES, HORIZON_MS
from penstock.workers.lua import script

_numbers = itertools.count()


@dataclass(frozen=True)
class Look:
    """What one look gave: (queue, message) in their order, and the ms to wait, below 0 when nothing waits."""

    taken: list[tuple[str, bytes]]
    tags: list[str]
    wait_ms: float

    @property
    def queues(self) -> list[str]:
        return [queue for queue, _ in self.taken]


def take(
    client: redis.Redis,
    prefix: str,
    room: int = 64,
    *,
    only: Sequence[str] | None = None,
    allowances: Mapping[str, int] | None = None,
) -> Look:
    """Take messages, of all queues with work or of ``only`` those."""
    asked: dict[str, Any] = {
        "prefix": prefix, "lane_queue": LANE_QUEUES, "lane": lane_key(prefix, "%s"), "tag": f"take-{next(_numbers)}-",
        "room": room, "horizon": HORIZON_MS, "allowance": FIRST_MESSAGES, "allowances": dict(allowances or {}),
    }  # fmt: skip
    if only is not None:
        asked["only"] = list(only)
    keys = [unacked_index_key(prefix), unacked_key(prefix), holder_key(prefix), endpoint_quotas_key(prefix)]
    keys += [work_key(prefix, job_class) for job_class in JOB_CLASSES]
    wait, *rows = script(client, "broker/take")(keys=keys, args=[json.dumps(asked)])
    found = list(zip(*[iter(rows)] * 3, strict=True))
    return Look([(queue.decode(), raw) for _, queue, raw in found], [tag.decode() for tag, *_ in found], float(wait))
