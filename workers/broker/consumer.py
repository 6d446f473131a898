"""Celery's consumer, for our workers: queues of ours are the feeder's, and no message's contents are logged."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.control import active_queues as kombu_queues
from celery.worker.control import inspect_command
from kombu.entity import Exchange, Queue

from penstock.workers.broker.feeder import Feeder

logger = logging.getLogger(__name__)


class LaneConsumer(Consumer):
    """Celery's own, whose queues are the feeder's where the broker is a Redis."""

    #: Set by the feeder; None where the broker is no Redis.
    feeder: Feeder | None = None

    def add_task_queue(self, queue: str, *args: Any, **options: Any) -> None:
        """Serve a queue (``celery control add_consumer``)."""
        if self.feeder is None or not self.feeder.feeds:
            super().add_task_queue(queue, *args, **options)
            return
        self.feeder.selection.add(queue)
        logger.info("serving %s from now on", queue)

    def cancel_task_queue(self, queue: str) -> None:
        """Serve a queue no more (``celery control cancel_consumer``)."""
        if self.feeder is None or not self.feeder.feeds:
            super().cancel_task_queue(queue)
            return
        self.feeder.selection.cancel(queue)
        logger.info("serving %s no more", queue)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Drop a message that is none; Celery's own would log its body."""
        logger.error("a message on %s is no task message: dropped", _queue_of(message))
        message.reject_log_error(logger, self.connection_errors)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Drop a message whose task cannot be made of it; Celery's own would log its body."""
        logger.error("a message on %s cannot be made a task (%s): dropped", _queue_of(message), type(exc).__name__)
        message.reject_log_error(logger, self.connection_errors)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop a message that cannot be decoded; Celery's own would log its body."""
        logger.error("a message on %s cannot be decoded (%s): dropped", _queue_of(message), type(exc).__name__)
        message.ack_log_error(logger, self.connection_errors)


@inspect_command(name="active_queues")
def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the queues that a worker serves: the feeder's where it has one."""
    feeder = getattr(state.consumer, "feeder", None)
    if feeder is None or not feeder.feeds:
        found: list[dict[str, Any]] = kombu_queues(state)
        return found
    queues = [Queue(name, Exchange(name), routing_key=name) for name in feeder.queues()]
    return [dict(queue.as_dict(recurse=True)) for queue in queues]


def _queue_of(message: Any) -> str:
    return str((message.delivery_info or {}).get("routing_key", "a queue"))
