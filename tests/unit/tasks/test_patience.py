"""A broker that is away fails no task."""

from __future__ import annotations

import pytest
import redis

from penstock.tasks.request import patience


async def test_what_the_broker_hinders_is_done_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AGAIN_S", 0.0)
    troubles: list[Exception] = [redis.ConnectionError("cut"), redis.TimeoutError("slow"), OSError("no route")]

    async def call() -> str:
        if troubles:
            raise troubles.pop()
        return "done"

    assert await patience.patiently(call) == "done"


async def test_other_errors_are_the_callers() -> None:
    async def call() -> None:
        raise redis.ResponseError("WRONGTYPE")

    with pytest.raises(redis.ResponseError):
        await patience.patiently(call)
