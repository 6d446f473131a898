"""A step of the worker's consumer that announces the worker, on any broker, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from typing import Any

import redis
from celery import bootsteps

from penstock.config.endpoints.file import EndpointsFile
from penstock.config.errors import PenstockError
from penstock.config.redis import connect
from penstock.workers.directory.announcements import ANNOUNCE_S, announce
from penstock.workers.runtime import runtime, state_server

logger = logging.getLogger(__name__)


class Announcer(bootsteps.StartStopStep):
    """The step. It stops with the consumer's connection, and is started again after it."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._stopped: threading.Event | None = None

    def start(self, consumer: Any) -> None:
        """Announce the worker now, and every few seconds."""
        stopped = self._stopped = threading.Event()
        threading.Thread(target=_announce, args=(stopped,), name="penstock-announcer", daemon=True).start()

    def stop(self, consumer: Any) -> None:
        """Announce it no more."""
        if self._stopped is not None:
            self._stopped.set()


def _announce(stopped: threading.Event) -> None:
    settings = runtime().settings
    file = EndpointsFile(settings)
    with connect(state_server(settings)) as client:
        while not stopped.is_set():
            try:
                announce(client, settings.key_prefix, file.read().endpoints)
            except (PenstockError, redis.RedisError, OSError) as exc:  # a wrong file is told where it is used
                logger.debug("the worker cannot be announced (%s)", exc)
            stopped.wait(ANNOUNCE_S)
