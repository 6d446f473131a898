"""Which lanes a worker on RabbitMQ serves: those of all endpoints, and new ones within a second."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps

from penstock.config.redis import is_redis
from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import urls

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
