"""A small Celery app on the asyncio pool, for tests of the pool. Its broker is ``POOL_BROKER_URL``."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

import redis
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from penstock.config.errors import InferenceFailed
from penstock.workers.pool.loop import running_in_pool, wait
from penstock.workers.task import Task
from support.stall_watch import ALLOWED

URL = os.environ.get("POOL_BROKER_URL", "redis://127.0.0.1:1/0")

app = Celery("pool_app", broker=URL, backend=URL, task_cls=Task)
app.conf.update(
    worker_pool=os.environ.get("POOL", "penstock.workers.pool.pool:TaskPool"),
    worker_prefetch_multiplier=1,
    task_acks_late=os.environ.get("POOL_EARLY") is None,
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("POOL_VISIBILITY", "60")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "priority_steps": [0],
    },
    result_expires=600,
    broker_connection_retry_on_startup=True,
    worker_soft_shutdown_timeout=float(os.environ.get("POOL_SOFT", "0")),
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
if "worker" in sys.orig_argv:
    # A plain Celery app: its own back end and kombu's channel block wherever a task ends. Ours do not.
    ALLOWED.update({"celery/worker/request.py": "messages and events", "celery/app/trace.py": "results"})
#: For what its tasks note; the keys begin with ``tests:``.
memory: redis.Redis = redis.Redis.from_url(URL, decode_responses=True)


@signals.task_prerun.connect
def _note_prerun(task_id: str, task: Any, **_: Any) -> None:
    if task.name == "events":
        memory.rpush("tests:order", f"prerun {task.request.id == task_id}")


@signals.task_postrun.connect
def _note_postrun(task_id: str, task: Any, state: str | None, **_: Any) -> None:
    if task.name == "events":
        memory.rpush("tests:order", f"postrun {state}")


@app.task(name="events", bind=True)
async def events(self: Any) -> str:
    memory.rpush("tests:order", "body")
    await asyncio.sleep(0.01)
    memory.rpush("tests:order", f"after {self.request.id is not None}")
    return str(self.request.id)


@app.task(name="add", blocking=False)
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="nap", bind=True)
async def nap(self: Any, seconds: float, value: Any = None) -> Any:
    """Sleep on the loop, keeping count of how many do so at once."""
    memory.incr(f"tests:started:{self.request.id}")
    count = memory.incr("tests:now")
    memory.zadd("tests:most", {"n": count}, gt=True)
    try:
        await asyncio.sleep(seconds)
    except BaseException as exc:
        memory.set("tests:interrupted", type(exc).__name__)
        raise
    finally:
        memory.decr("tests:now")
        assert self.request.id
    memory.incr("tests:finished")
    return value


@app.task(name="until")
async def until(key: str) -> None:
    """Wait on the loop until a key is set."""
    memory.incr("tests:now")
    while not await asyncio.to_thread(memory.exists, key):
        await asyncio.sleep(0.02)
    memory.decr("tests:now")


@app.task(name="bridge", blocking=False)
def bridge(seconds: float) -> list[Any]:
    async def inner() -> str:
        await asyncio.sleep(seconds)
        return threading.current_thread().name

    return [running_in_pool(), wait(inner()), threading.current_thread().name]


@app.task(name="thread")
def thread(seconds: float) -> list[Any]:
    memory.incr("tests:threads")
    time.sleep(seconds)

    async def inner() -> str:
        await asyncio.sleep(0.01)
        return threading.current_thread().name

    return [running_in_pool(), wait(inner()), threading.current_thread().name]


@app.task(name="careful", bind=True)
async def careful(self: Any, seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)
        return "saved"
    return "slept"


@app.task(name="thread_wait")
def thread_wait(seconds: float) -> str:
    wait(asyncio.sleep(seconds))
    return "slept"


@app.task(name="flaky", bind=True, autoretry_for=(KeyError,), max_retries=3, default_retry_delay=0)
async def flaky(self: Any, failures: int) -> int:
    await asyncio.sleep(0)
    if self.request.retries < failures:
        raise KeyError("not yet")
    return int(self.request.retries)


@app.task(name="fail")
async def fail(kind: str) -> None:
    await asyncio.sleep(0)
    if kind == "typed":
        raise InferenceFailed("no: do this", "content_filter", 400, 3)
    if kind == "exit":
        raise SystemExit(3)
    if kind == "ignore":
        raise Ignore
    if kind == "reject":
        raise Reject("unwanted", requeue=False)
    if kind == "cancelled":
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
    raise ValueError(kind)


@app.task(name="total", blocking=False)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="progress", bind=True)
async def progress(self: Any) -> str:
    self.update_state(state="RUNNING", meta={"operation": "abc"})
    await asyncio.sleep(0.5)
    return "done"


@app.task(name="greenlets", blocking=False)
def greenlets() -> list[int]:
    import gc

    from celery._state import _task_stack

    from penstock.workers.pool.job import PoolJob
    from penstock.workers.pool.loop import _Carrier

    gc.collect()
    alive = gc.get_objects()
    return [
        sum(type(each) is _Carrier for each in alive),
        sum(type(each) is PoolJob for each in alive),
        len(_task_stack._local.__storage__),
        len(nap.request_stack._local.__storage__),
    ]
