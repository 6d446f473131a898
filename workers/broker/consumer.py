"""Celery's consumer, for our workers: queues of ours are the feeder's, and no message's contents are logged."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from celery import signals
from celery.exceptions import NotRegistered
from celery.worker.consumer import Consumer
from celery.worker.control import active_queues as kombu_queues
from celery.worker.control import inspect_command
from celery.worker.state import active_requests, reserved_requests, scheduled_requests
from kombu.entity import Exchange, Queue

from penstock.config.formats import MESSAGE_HEADER
from penstock.workers.broker.feeder import Feeder
from penstock.workers.broker.message import Unreadable

logger = logging.getLogger(__name__)

#: Seconds for which events of tasks are gathered.
GATHER_EVENTS_S = 0.05


class LaneConsumer(Consumer):
    """Celery's own, whose queues are the feeder's where the broker is a Redis."""

    #: Set by the feeder; None where the broker is no Redis.
    feeder: Feeder | None = None
    _event_dispatcher: Any = None
    _events_due = False

    def add_task_queue(self, queue: str, *args: Any, **options: Any) -> None:
        """Serve a queue (``celery control add_consumer``)."""
        if self.feeder is None:
            super().add_task_queue(queue, *args, **options)
            return
        self.feeder.selection.add(queue)
        logger.info("serving %s from now on", queue)

    def cancel_task_queue(self, queue: str) -> None:
        """Serve a queue no more (``celery control cancel_consumer``)."""
        if self.feeder is None:
            super().cancel_task_queue(queue)
            return
        self.feeder.selection.cancel(queue)
        logger.info("serving %s no more", queue)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """End a lease at once, from whatever thread: it waits for nothing, and is not lost with a worker that stops."""
        if self.feeder is None:
            return super().call_soon_ack(p, *args, **kwargs)
        p(*args, **kwargs)
        return p

    @property
    def event_dispatcher(self) -> Any:
        """What sends events: only when told to, for it blocks, and whoever has an event may be on the event loop."""
        return self._event_dispatcher

    @event_dispatcher.setter
    def event_dispatcher(self, dispatcher: Any) -> None:
        if dispatcher is not None:
            dispatcher.buffer_limit = sys.maxsize
        self._event_dispatcher = dispatcher

    def on_send_event_buffered(self) -> None:
        """Have events of tasks sent together, by the worker's own thread: from any thread."""
        if self.hub and not self._events_due:
            self._events_due = True
            self.hub.call_soon(self.hub.call_later, GATHER_EVENTS_S, self._flush_events)

    def _flush_events(self) -> None:
        self._events_due = False  # first: an event that comes from now on is sent by another flush
        super()._flush_events()

    def shutdown(self) -> None:
        """Send the last events, then shut down."""
        self._flush_events()
        super().shutdown()

    def on_close(self) -> None:
        """Forget, as Celery does with a connection, what waits for its time or rate: it goes back, for leases go on."""
        waiting = list(_waiting(self)) if self.feeder is not None else []
        super().on_close()
        for request in waiting:
            with contextlib.suppress(request.message.MessageStateError):
                request.message.requeue()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Celery's own would log its body."""
        self._give_up(message, "it is no task message")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery's own would log its body."""
        self._give_up(message, f"no task can be made of it ({type(exc).__name__})")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Celery's own would log its body."""
        self._give_up(message, f"its body cannot be decoded ({type(exc).__name__})")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Tell the sender, as Celery's own does, which would log the message's body as well."""
        task_id, request = _request_of(message)
        error = NotRegistered(request.name)
        logger.error("a message on %s is for a task that is not registered: %s", _queue_of(message), request.name)
        if self.feeder is not None:
            self.feeder.refuse(message, task_id, error, request)
        else:
            message.reject_log_error(logger, self.connection_errors)
            self.app.backend.mark_as_failure(task_id, error, request=request)
        if self.event_dispatcher:
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=repr(error))
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=request.name, id=task_id)

    def _give_up(self, message: Any, why: str) -> None:
        """Have a message set apart by the feeder, which gave it; drop it where there is none.

        Raises:
            Unreadable: to the feeder.
        """
        signals.task_rejected.send(sender=self, message=message, exc=None)
        if self.feeder is not None:
            raise Unreadable(why)
        logger.error("a message on %s: %s; dropped", _queue_of(message), why)
        message.reject_log_error(logger, self.connection_errors)


def _waiting(consumer: Consumer) -> Iterator[Any]:
    """Requests that are in the worker's memory and not in the pool."""
    begun = {*active_requests, *reserved_requests}
    yield from (request for request in tuple(scheduled_requests) if request not in begun)
    for bucket in consumer.task_buckets.values():
        if bucket:
            yield from (request for request, *_ in tuple(bucket.contents))


def _request_of(message: Any) -> tuple[str, Any]:
    """Return a task's id, and what Celery's back ends ask of its request."""
    headers, properties = message.headers, message.properties
    if "task" not in headers:  # the older protocol, which has both in the body
        headers = message.payload
    return headers["id"], SimpleNamespace(
        name=headers["task"], chord=None, root_id=headers.get("root_id"), errbacks=None,
        correlation_id=properties.get("correlation_id"), reply_to=properties.get("reply_to"),
        **{MESSAGE_HEADER: headers.get(MESSAGE_HEADER)},
    )  # fmt: skip


@inspect_command(name="active_queues")
def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the queues that a worker serves: the feeder's where it has one."""
    feeder = getattr(state.consumer, "feeder", None)
    if feeder is None:
        found: list[dict[str, Any]] = kombu_queues(state)
        return found
    queues = [Queue(name, Exchange(name), routing_key=name) for name in feeder.queues()]
    return [dict(queue.as_dict(recurse=True)) for queue in queues]


def _queue_of(message: Any) -> str:
    return str((message.delivery_info or {}).get("routing_key", "a queue"))
