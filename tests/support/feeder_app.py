"""Our app with tasks that need no endpoint, for tests of how messages reach a worker and end."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.config.redis import connect_async
from penstock.workers.app import app

__all__ = ["app"]


async def _count(what: str, task_id: str) -> None:
    async with connect_async(app.conf.broker_url) as client:
        await client.hincrby(f"tests:{what}", task_id, 1)


@app.task(name="tests.nap", bind=True)
async def nap(self: Any, seconds: float = 0.0, value: Any = None) -> Any:
    """Sleep; the hashes ``tests:begun`` and ``tests:done`` count by task id."""
    await _count("begun", self.request.id)
    await asyncio.sleep(seconds)
    await _count("done", self.request.id)
    return value


@app.task(name="tests.add", blocking=False)
def add(x: int, y: int) -> int:
    return x + y
