"""Sends batches as messages of the ``embed`` task to the endpoint's bulk queue, many in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError
from kombu.messaging import Producer

from penstock.config.names import BULK, EMBED_TASK, queue_name
from penstock.tasks.backfill.plan.batch import Batch
from penstock.workers.app import PenstockApp
from penstock.workers.task import describe

MESSAGES_A_ROUND_TRIP = 32
INPUT_TYPE = "ingest"
"""Elasticsearch's word for texts that are to be searched; models that tell queries from documents need it."""


class NotSent(Exception):
    """The broker did not take the messages, or it is not known whether it did."""


class BatchPublisher:
    """The way to one endpoint's bulk queue.

    Args:
        app: the Celery app.
        endpoint_id: the inference endpoint.
    """

    def __init__(self, app: PenstockApp, endpoint_id: str) -> None:
        self._app, self._endpoint_id = app, endpoint_id
        self.queue = queue_name(endpoint_id, BULK)
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def send(self, batches: Sequence[Batch]) -> None:
        """Send batches.

        Raises:
            NotSent: the broker cannot be reached, or the connection broke: some may have been sent.
        """
        try:
            producer = self._open()
            with producer.batch(MESSAGES_A_ROUND_TRIP):
                for batch in batches:
                    self._publish(producer, batch)
            self._app.ring([self.queue])
        except self._errors() as exc:
            self.close()
            raise NotSent(str(exc)) from exc

    def close(self) -> None:
        """Close the connection; ``send`` opens another."""
        if self._connection is not None:
            with suppress(Exception):  # it may be broken already, and is not wanted any more
                self._connection.release()
        self._connection = self._producer = None

    def _errors(self) -> tuple[type[Exception], ...]:
        transports: tuple[type[Exception], ...] = ()
        if self._connection is not None:
            transports = (*self._connection.connection_errors, *self._connection.channel_errors)
        return (KombuError, OSError, *transports)

    def _open(self) -> Producer:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            self._producer = Producer(self._connection, auto_declare=False)
            # On Redis this does nothing; on RabbitMQ a message to a queue that is not there would be dropped.
            Queue(self.queue, durable=True, channel=self._producer.channel).declare()
        return self._producer

    def _publish(self, producer: Producer, batch: Batch) -> None:
        # As Celery's apply_async, without what it does for each call: routing, a look at the arguments, a declaration.
        shown = describe(EMBED_TASK, (batch.texts, self._endpoint_id), {})
        message = self._app.amqp.as_task_v2(
            batch.task_id, EMBED_TASK, (), {}, argsrepr=shown, kwargsrepr="{}", shadow=None, create_sent_event=False
        )
        arguments: tuple[Any, ...] = ([batch.texts, self._endpoint_id], {"input_type": INPUT_TYPE}, message.body[2])
        producer.publish(
            orjson.dumps(arguments),
            exchange="",
            routing_key=self.queue,
            content_type="application/json",
            content_encoding="utf-8",
            compression=self._app.conf.task_compression,
            headers=message.headers,
            delivery_mode=2,
            retry=False,
            **message.properties,
        )
