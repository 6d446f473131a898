"""Calls of the limiter's scripts: their keys and arguments, their answers by name, their errors in our words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from penstock.config.errors import FormatTooNew
from penstock.config.formats import LANE
from penstock.config.names import flight_key, lane_key, signal_channel, used_key
from penstock.config.redis import text
from penstock.workers.lua import script

#: The scripts: one for the call that every request makes, one for the other operations.
RESERVE, DISPATCH = "lanes/reserve", "lanes/dispatch"


def script_of(operation: str) -> str:
    """Return the script that carries out an operation."""
    return RESERVE if operation == "reserve" else DISPATCH


def call(prefix: str, quota: str, operation: str, arguments: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Return the keys and the arguments of a call, the clock left out."""
    keys = [lane_key(prefix, quota), used_key(prefix, quota), flight_key(prefix, quota)]
    pairs = [part for pair in arguments.items() for part in pair]
    return keys, [operation, signal_channel(prefix), *pairs]


def run_blocking(
    client: redis.Redis, prefix: str, quota: str, operation: str, arguments: Mapping[str, Any], clock_ms: float = 0
) -> list[Any]:
    """Carry out one operation over a blocking client; ``clock_ms`` 0 is the server's own clock.

    Raises:
        FormatTooNew: a newer version has written the lane.
    """
    keys, args = call(prefix, quota, operation, arguments)
    try:
        answer: list[Any] = script(client, script_of(operation))(keys=keys, args=args, clock_ms=clock_ms)
    except redis.ResponseError as exc:
        raise translated(exc, quota) from exc
    return answer


def by_name(flat: Sequence[Any]) -> dict[str, str]:
    """Return what a script answers as names and values."""
    parts = [text(part) for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def translated(exc: redis.ResponseError, quota: str) -> Exception:
    """Return the error to raise for a script's: in our words where it is ours."""
    code, _, number = str(exc).partition(" ")
    if code != "NEWERLANE":
        return exc
    return FormatTooNew(LANE.thing.format(quota), int(number), LANE.number)
