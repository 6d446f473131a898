"""A broker with workers of ``support.feeder_app`` on it: what is on its queues, in flight, dead and done."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis

from penstock.config.redis import text
from penstock.workers.broker.bells import ring
from penstock.workers.broker.dead_letters import DeadMessage, read_dead
from support.app import close_app, own_app
from support.waiting import wait_until

PREFIX = "penstock:"
QUEUE = "penstock"


def envelope(task: Any = "tests.add", body: Any = ((1, 2), {}, {}), **headers: Any) -> dict[str, Any]:
    """Make a message as kombu writes it; ``body`` may be bytes."""
    task_id = str(uuid4())
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {
        "body": base64.b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, **headers},
        "properties": {"correlation_id": task_id, "body_encoding": "base64", "delivery_info": {}, "delivery_tag": "t"},
    }


class Plant:
    """See the module.

    Args:
        client: of the broker.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.app = own_app("plant")

    def close(self) -> None:
        close_app(self.app)

    def send(self, name: str = "tests.nap", *args: Any, **options: Any) -> Any:
        """Send a task as an application does."""
        return self.app.send_task(name, args, **options)

    def push(self, raw: Any, queue: str = QUEUE) -> bytes:
        """Put whatever on a queue, and ring. Returns its bytes."""
        data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
        self.client.lpush(f"{PREFIX}{queue}", data)
        ring(self.client, PREFIX, [queue])
        return data

    def waiting(self, queue: str = QUEUE) -> int:
        return int(self.client.llen(f"{PREFIX}{queue}"))  # type: ignore[arg-type]

    def in_flight(self) -> list[str]:
        return [text(tag) for tag in self.client.zrange(f"{PREFIX}unacked_index", 0, -1)]  # type: ignore[union-attr]

    def counts(self, what: str) -> dict[str, int]:
        """How often each task has ``begun`` or is ``done``."""
        found: Any = self.client.hgetall(f"tests:{what}")
        return {text(task_id): int(number) for task_id, number in found.items()}

    def outcome(self, task_id: str) -> Any:
        """What a task returned, or the error that it ended with."""
        return self.app.AsyncResult(task_id).get(timeout=10, propagate=False)

    def answered(self, task_id: str) -> bool:
        """Whether a task's outcome is stored: for an app that reads our results, or for any other."""
        return bool(self.client.exists(f"{PREFIX}celery-task-meta-{task_id}", f"celery-task-meta-{task_id}"))

    def dead(self, *queues: str) -> list[DeadMessage]:
        return read_dead(self.client, PREFIX, queues or (QUEUE,))

    def at_rest(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        names = ("unacked_index", "unacked", "in-flight", "due", "due-messages", QUEUE)
        return not self.client.exists(*(PREFIX + name for name in names))

    def wait(self, predicate: Callable[[], object], reason: str, timeout: float = 15.0) -> None:
        wait_until(predicate, reason, timeout)
