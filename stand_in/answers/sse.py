"""Server-sent events: a completion in pieces, cut or spoilt half-way where a fault says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from penstock.stand_in.request.call import Fault, Stream

DONE = b"data: [DONE]\n\n"
_ERROR = {"error": {"message": "The server had an error while processing your request.", "type": "server_error",
                    "param": None, "code": None}}  # fmt: skip


def event(data: Any) -> bytes:
    """Return one event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def spoilt(events: Sequence[bytes], fault: Fault | None, error: bytes, garbage: bytes) -> list[bytes]:
    """Return the events that a fault leaves: the first half, and for some an ``error`` or ``garbage`` that ends it."""
    half = list(events[: len(events) // 2])
    kind = fault.kind if fault else ""
    if kind in ("cut-stream", "truncated"):
        return half
    if kind == "error-stream":
        return [*half, error]
    if kind == "malformed":
        return [*half, garbage]
    return list(events)


def stream(events: Sequence[bytes], fault: Fault | None, delay_s: float) -> Stream:
    """Return the answer that sends ``events``, ``delay_s`` apart."""
    left = spoilt(events, fault, event(_ERROR), b'data: {"id":"\n\n')
    return Stream(paced(left, delay_s))


async def paced(parts: Sequence[bytes], delay_s: float) -> AsyncIterator[bytes]:
    """Yield ``pieces`` at their pace."""
    for part in parts:
        if delay_s:
            await asyncio.sleep(delay_s)
        yield part
