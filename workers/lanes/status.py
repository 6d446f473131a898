"""A lane as operators see it: read whole, in one look, from any process."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import redis

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.names import JOB_CLASSES, flight_key, holder_key, lane_key, queue_key, queue_name, used_key
from penstock.config.settings import Settings

#: What a header said is forgotten after so many seconds, as in limiter.lua.
HEADER_S = 300

State = Literal["open", "cooling", "paused", "parked", "probing"]


@dataclass(frozen=True)
class LaneState:
    """What a lane is doing.

    Args:
        quota: the quota's name.
        state: ``open``, ``cooling``, ``paused``, ``parked`` (an operator must act) or ``probing`` (one request is out
            to see whether the cause of parking is gone).
        why: the reason, with what to do next; "" when open.
        cool_s: seconds of cooling left.
        requests, tokens, rate_limited: over the last minute.
        requests_limit, tokens_limit: in force, per minute; learnt ones are lower than the configured; None for none.
        operations: operations in flight (images).
    """

    quota: str
    state: State = "open"
    why: str = ""
    cool_s: float = 0.0
    requests: int = 0
    tokens: int = 0
    rate_limited: int = 0
    requests_limit: float | None = None
    tokens_limit: float | None = None
    operations: int = 0


def read_lane(client: redis.Redis, settings: Settings, quota: str, endpoint: Endpoint | None = None) -> LaneState:
    """Read a lane's state.

    Args:
        client: of the Redis that holds the lanes.
        settings: for the key prefix.
        quota: the quota's name.
        endpoint: for the configured limits; without it only learnt ones are given.
    """
    prefix = settings.key_prefix
    with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(lane_key(prefix, quota))
        pipe.hgetall(used_key(prefix, quota))
        pipe.zcount(flight_key(prefix, quota), time.time() * 1000, "+inf")
        pipe.time()
        lane, used, operations, (seconds, micros) = pipe.execute()
    lane, used = _text(lane), _text(used)
    now = seconds + micros / 1e6
    state, cool = _state(lane, now)
    limit = endpoint.rate_limit if endpoint else None
    return LaneState(
        quota, state, _why(lane, state, cool), cool, *_minute(used, int(now)),
        _limit(lane, "r", now, limit.requests_per_minute if limit else None),
        _limit(lane, "t", now, limit.tokens_per_minute if limit else None), int(operations),
    )  # fmt: skip


def waiting(client: redis.Redis, settings: Settings, inference_id: str) -> dict[str, int]:
    """Return the number of messages waiting in the broker for an endpoint, by class."""
    keys = {name: queue_key(settings.key_prefix, queue_name(inference_id, name)) for name in JOB_CLASSES}
    return {name: int(client.llen(key)) for name, key in keys.items()}


def in_flight(client: redis.Redis, settings: Settings) -> Counter[str]:
    """Return the number of messages in flight in all workers, by queue."""
    queues: list[Any] = client.hvals(holder_key(settings.key_prefix))
    return Counter(_str(queue) for queue in queues)


def _text(raw: dict[Any, Any]) -> dict[str, str]:
    return {_str(key): _str(value) for key, value in raw.items()}


def _str(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _state(lane: dict[str, str], now: float) -> tuple[State, float]:
    cool = max(0.0, float(lane.get("cool") or 0) / 1000 - now)
    kept = lane.get("state") or ""
    if kept in ("paused", "parked", "probing"):
        return kept, cool  # type: ignore[return-value]
    return ("cooling" if cool > 0 else "open"), cool


def _why(lane: dict[str, str], state: State, cool: float) -> str:
    if lane.get("why"):
        return lane["why"]
    return f"the service asked to wait; {cool:.0f} s left" if state == "cooling" else ""


def _minute(used: dict[str, str], now: int) -> tuple[int, int, int]:
    totals = [0.0, 0.0, 0.0]
    for slot in range(64):
        second = used.get(f"s{slot}")
        if second is not None and now - 60 <= int(float(second)) <= now:
            for n, what in enumerate("rtx"):
                totals[n] += float(used.get(f"{what}{slot}") or 0)
    return round(totals[0]), round(totals[1]), round(totals[2])


def _limit(lane: dict[str, str], dimension: str, now: float, configured: float | None) -> float | None:
    fresh = now - float(lane.get("saidat") or 0) / 1000 <= HEADER_S
    known = [float(lane.get(f"{kind}{dimension}") or 0) for kind in ("e", *(["said"] if fresh else []))]
    limits = [limit for limit in (configured or 0.0, *known) if limit > 0]
    return min(limits) if limits else None
