"""Which lanes a worker on RabbitMQ serves: those of all endpoints, and new ones within a second."""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery import bootsteps

from penstock.config.errors import PenstockError
from penstock.config.names import JOB_CLASSES, queue_name
from penstock.config.settings import load_settings
from penstock.config.urls import is_redis
from penstock.workers.embedded.broker import urls
from penstock.workers.endpoint_cache import EndpointCache
from penstock.workers.runtime import runtime

logger = logging.getLogger(__name__)

LOOK_S = 0.5


class LaneWatcher(bootsteps.StartStopStep):
    """A step of the worker's consumer: takes up the queues of endpoints as they come, and drops them as they go.

    A worker that was given its queues (``-Q``) keeps to them; excluded ones (``-X``) are left alone.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._version: str | None = None
        self._queues: set[str] = set()
        self._dropping: set[str] = set()
        self._entry: Any = None

    def include_if(self, consumer: Any) -> bool:
        """Leave the step out where the feeder takes messages, and of a worker that was told its queues."""
        return not is_redis(urls(load_settings()).broker) and not getattr(consumer.controller, "chosen_queues", None)

    def start(self, consumer: Any) -> None:
        """Look at once, then twice a second; again after each reconnection."""
        self._version = None
        self._queues.clear()
        self.look(consumer)
        self._entry = consumer.timer.call_repeatedly(LOOK_S, self.look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.cancel()

    def look(self, consumer: Any) -> None:
        """Compare the endpoints with the queues that are consumed; one cheap read while nothing has changed."""
        try:
            endpoints = runtime().endpoints
            endpoints.refresh()
            if endpoints.version != self._version:
                self._version = endpoints.version
                self._follow(consumer, endpoints)
            self._drop_empty_queues(consumer)
        except (PenstockError, redis.RedisError, OSError) as exc:
            logger.warning("the endpoints cannot be read (%s); trying again", exc)

    def _follow(self, consumer: Any, known: EndpointCache) -> None:
        excluded: frozenset[str] = getattr(consumer.controller, "excluded_queues", frozenset())
        ids = [endpoint.inference_id for endpoint in known.all()]
        wanted = {queue_name(each, job_class) for each in ids for job_class in JOB_CLASSES} - excluded
        for queue in sorted(wanted - self._queues):
            consumer.call_soon(consumer.add_task_queue, queue)
        self._dropping = (self._dropping | self._queues) - wanted
        self._queues = wanted | self._dropping

    def _drop_empty_queues(self, consumer: Any) -> None:
        """Drop the queues of deleted endpoints, once what was in them has been told that its endpoint is gone."""
        for queue in sorted(self._dropping):
            if _is_empty(consumer, queue):
                consumer.call_soon(consumer.cancel_task_queue, queue)
                self._dropping.discard(queue)
                self._queues.discard(queue)


def _is_empty(consumer: Any, queue: str) -> bool:
    try:
        declared = consumer.connection.default_channel.queue_declare(queue, passive=True)
    except consumer.channel_errors:  # it is gone already
        return True
    return bool(declared.message_count == 0)
