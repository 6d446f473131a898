"""Messages that wait for a time and not for a lane: in Redis, in no worker's hands.

A task that has to look again later (is the image ready?) sets its own message aside. Until it is due the message is in
a sorted set; then the first worker that looks puts it on a queue again. No worker's slot is held meanwhile, nothing
sits in a worker as a Celery ETA, and whoever dies, the message is in exactly one place.

Polls of an operation come back on a queue of their own, ``operations_queue``, which the lane's gate lets pass:
what was submitted is looked after, though the lane may cool or be paused.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import redis
import redis.asyncio
from celery import bootsteps
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from penstock.config.endpoints.services import TaskType
from penstock.config.errors import PenstockError
from penstock.config.names import (
    bell_key,
    due_key,
    due_messages_key,
    holder_key,
    operations_queue,
    parse_queue,
    queue_key,
    unacked_index_key,
    unacked_key,
)
from penstock.config.redis import is_redis
from penstock.config.settings import load_settings
from penstock.workers.broker.bells import BELLS
from penstock.workers.embedded.broker import urls
from penstock.workers.endpoint_cache import EndpointCache
from penstock.workers.lua import async_script, script
from penstock.workers.runtime import runtime

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is due.
LOOK_S = 0.25
#: Messages put on their queues in one look.
AT_ONCE = 200


async def set_aside(client: redis.asyncio.Redis, prefix: str, tag: str, queue: str, delay_s: float) -> bool:
    """Move a message in flight to where it waits until it is due. The task then has to end with Celery's ``Ignore``.

    Args:
        client: asyncio client of the broker.
        prefix: prefix of all keys.
        tag: the message's delivery tag. It comes back under another, so that this delivery's end is not its.
        queue: where it comes back.
        delay_s: seconds until then.

    Returns:
        False where the message is not in flight on this broker; then nothing has been done.
    """
    unacked = unacked_key(prefix)
    kept: Any = await client.hget(unacked, tag)
    if kept is None:
        return False
    message = loads(bytes_to_str(kept))[0]
    properties = message.setdefault("properties", {})
    properties["delivery_tag"] = str(uuid4())
    message.setdefault("headers", {})["redelivered"] = True
    properties.setdefault("delivery_info", {})["redelivered"] = True
    keys = [unacked_index_key(prefix), unacked, holder_key(prefix)]
    moved = await async_script(client, "broker/set_aside")(
        keys=[*keys, due_key(prefix), due_messages_key(prefix)],
        args=[tag, f"{properties['delivery_tag']} {queue}", dumps(message), delay_s * 1000],
    )
    return bool(moved == 1)


def put_due(client: redis.Redis, prefix: str) -> int:
    """Put messages that are due on their queues. Returns how many."""
    keys = [due_key(prefix), due_messages_key(prefix)]
    return int(
        script(client, "broker/due")(keys=keys, args=[queue_key(prefix, ""), bell_key(prefix, ""), AT_ONCE, BELLS])
    )


class DueWatcher(bootsteps.StartStopStep):
    """A step of the worker's consumer: puts due messages on their queues, and takes up the queues of operations."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._settings = load_settings()
        self._url = urls(self._settings).broker
        self._queues: set[str] = set()
        self._entry: Any = None

    def include_if(self, consumer: Any) -> bool:
        """Leave the step out where the broker is no Redis: there tasks wait in their workers."""
        return is_redis(self._url)

    def start(self, consumer: Any) -> None:
        """Look at once, then four times a second; again after each reconnection."""
        self._queues.clear()
        self.look(consumer)
        self._entry = consumer.timer.call_repeatedly(LOOK_S, self.look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.cancel()

    def look(self, consumer: Any) -> None:
        """Put what is due on its queue; consume the operations' queues of those lanes that this worker serves."""
        try:
            shared = runtime()
            self._follow(consumer, shared.endpoints)
            put_due(shared.client, self._settings.key_prefix)
        except (PenstockError, redis.RedisError, OSError) as exc:
            logger.warning("what is due cannot be looked up (%s); trying again", exc)

    def _follow(self, consumer: Any, known: EndpointCache) -> None:
        lanes = {parse_queue(queue.name) for queue in consumer.task_consumer.queues}
        endpoints = [known.find(lane[0]) for lane in lanes if lane is not None]
        wanted = {
            operations_queue(endpoint.inference_id)
            for endpoint in endpoints
            if endpoint is not None and endpoint.task_type is TaskType.IMAGE_GENERATION
        }
        for queue in wanted - self._queues:
            consumer.call_soon(consumer.add_task_queue, queue)
        for queue in self._queues - wanted:
            consumer.call_soon(consumer.cancel_task_queue, queue)
        self._queues = wanted
