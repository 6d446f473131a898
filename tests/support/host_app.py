"""An application with a Celery app of its own, of any version: ``celery -A support.host_app worker -Q mine``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

URL = os.environ.get("PENSTOCK_BROKER_URL", "redis://")

app = Celery("host", broker=URL, backend=os.environ.get("HOST_SCHEME", "") + URL)
app.conf.update(task_default_queue="mine", broker_connection_retry_on_startup=True, worker_enable_remote_control=False)


@app.task
def words() -> list[str]:
    """What is to be embedded."""
    return ["one", "two", "three"]


@app.task
def word(text: str) -> str:
    """One text."""
    return text


@app.task
def shape(result: dict[str, Any]) -> list[int]:
    """What comes of one embed call, as a task of another app is given it."""
    found: list[int] = result["vectors"]["shape"]
    return found


@app.task
def shapes(results: list[dict[str, Any]]) -> list[list[int]]:
    """What comes of several."""
    return [each["vectors"]["shape"] for each in results]


@app.task
def total(result: dict[str, Any]) -> float:
    """The sum of all numbers, by way of the object."""
    from penstock.tasks import result_from

    return float(result_from(result).vectors.sum())


@app.task
def failed(task_id: Any, *rest: Any) -> str:
    """An errback."""
    return f"failed: {task_id}"
