"""Our app with tasks that need no endpoint, for tests of how messages reach a worker and end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect, connect_async
from penstock.config.settings import load_settings
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


@app.task(name="tests.block", blocking=False)
def block() -> list[str]:
    """Ask Redis by a blocking call on the loop, as no task should; ``support.stall_watch`` tells."""
    with connect(app.conf.broker_url) as client:
        return [each.inference_id for each in Registry(client, load_settings()).list()]


@app.task(name="tests.add", blocking=False)
def add(x: int, y: int) -> int:
    return x + y


_running: set[str] = set()


@app.task(name="tests.work", bind=True)
async def work(self: Any, seconds: float = 0.0, kills: bool = False) -> int:
    """Work for a while, then perhaps kill the worker. The hash ``tests:beside`` has how many others ran beside it."""
    _running.add(self.request.id)
    try:
        await _note(self.request.id, seconds)
        if kills:
            os.kill(os.getpid(), signal.SIGKILL)
    finally:
        _running.discard(self.request.id)
    return 1


async def _note(task_id: str, seconds: float) -> None:
    async with connect_async(app.conf.broker_url) as client:
        await client.hincrby("tests:begun", task_id, 1)
        await asyncio.sleep(seconds)
        await client.rpush(f"tests:beside:{task_id}", len(_running) - 1)
