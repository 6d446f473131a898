"""A lane as operators see it: read whole, in one look, from any process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import redis

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.names import JOB_CLASSES, JobClass, holder_key, origin_queue, queue_key, queue_name, suspects_queue
from penstock.config.redis import text
from penstock.config.settings import Settings
from penstock.workers.lanes.scripts import by_name, run_blocking
from penstock.workers.lanes.states import State


@dataclass(frozen=True)
class LaneState:
    """What a lane is doing.

    Args:
        quota: the quota's name.
        state: as operators see it: ``paused`` while a person has paused the lane, else ``underlying``.
        why: the reason of what ``state`` says, with what to do next; "" when open.
        cool_s: seconds of cooling left.
        requests, tokens, rate_limited: over the last minute.
        requests_limit, tokens_limit: in force, per minute; learnt ones are lower than the configured; None for none.
        operations: operations in flight (images).
        paused, pause_why: whether a person has paused it, and why.
        underlying, underlying_why: the state that goes on under a pause (see ``states``), and why.
    """

    quota: str
    state: Literal["open", "cooling", "paused", "parked", "probing"] = "open"
    why: str = ""
    cool_s: float = 0.0
    requests: int = 0
    tokens: int = 0
    rate_limited: int = 0
    requests_limit: float | None = None
    tokens_limit: float | None = None
    operations: int = 0
    paused: bool = False
    pause_why: str = ""
    underlying: Literal["open", "cooling", "parked", "probing"] = "open"
    underlying_why: str = ""


def read_lane(client: redis.Redis, settings: Settings, quota: str, endpoint: Endpoint | None = None) -> LaneState:
    """Read a lane's state.

    Args:
        client: of the Redis that holds the lanes.
        settings: for the key prefix.
        quota: the quota's name.
        endpoint: for the configured limits; without it only learnt ones are given.

    Raises:
        FormatTooNew: a newer version has written the lane.
    """
    limit = endpoint.rate_limit if endpoint else None
    configured = {
        "requests.configured": (limit and limit.requests_per_minute) or 0,
        "tokens.configured": (limit and limit.tokens_per_minute) or 0,
    }
    lane = by_name(run_blocking(client, settings.key_prefix, quota, "look", configured))
    state: Any = State(lane["state"]).value
    cool_s, paused = float(lane["cooling_ms"]) / 1000, lane["paused"] == "1"
    why = lane["why"]
    if state == State.COOLING and not why:
        why = f"the service asked to wait; {cool_s:.0f} s left"
    return LaneState(
        quota=quota,
        state="paused" if paused else state,
        why=lane["pause_why"] if paused else why,
        cool_s=cool_s,
        requests=round(float(lane["requests"])),
        tokens=round(float(lane["tokens"])),
        rate_limited=round(float(lane["rate_limited"])),
        requests_limit=float(lane["requests_limit"]) or None,
        tokens_limit=float(lane["tokens_limit"]) or None,
        operations=int(lane["operations"]),
        paused=paused,
        pause_why=lane["pause_why"],
        underlying=state,
        underlying_why=why,
    )


def waiting(client: redis.Redis, settings: Settings, inference_id: str) -> dict[JobClass, int]:
    """Return the number of messages waiting in the broker for an endpoint, by class; suspects, too.

    A queue whose key holds something else than a list has none.
    """
    found = {}
    for name in JOB_CLASSES:
        queue = queue_name(inference_id, name)
        found[name] = sum(
            _length(client, queue_key(settings.key_prefix, each)) for each in (queue, suspects_queue(queue))
        )
    return found


def _length(client: redis.Redis, key: str) -> int:
    try:
        return int(client.llen(key))
    except redis.ResponseError:
        return 0


def in_flight(client: redis.Redis, settings: Settings) -> Counter[str]:
    """Return the number of messages in flight in all workers, by queue."""
    queues: list[Any] = client.hvals(holder_key(settings.key_prefix))
    return Counter(origin_queue(text(queue)) for queue in queues)
