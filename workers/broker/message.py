"""A message off a lane's queue as Celery's worker takes it: kombu's, with a channel of ours that ends its lease."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from kombu.message import Message
from kombu.utils.json import loads

from penstock.workers.broker.leases import Leases


class Unreadable(Exception):
    """What was on the queue is no message: not an envelope, cut, or of the wrong types."""


class LeaseChannel:
    """What a ``kombu.message.Message`` asks of its channel."""

    #: kombu's: consumers that want no acknowledgements. There are none here.
    no_ack_consumers: frozenset[str] = frozenset()

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """End the lease: the message is done."""
        self._leases.ack(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """End the lease: the message is dropped, or goes back as the next to be taken."""
        if requeue:
            self._leases.put_back(delivery_tag)
        else:
            self._leases.ack(delivery_tag)


def read_message(raw: bytes, tag: str, queue: str, channel: LeaseChannel, accept: Any) -> Message:
    """Make a message of what stood on a queue.

    Args:
        raw: kombu's envelope, as its Redis transport writes it.
        tag: the lease's.
        queue: where it stood.
        channel: ends the lease.
        accept: content types that may be read.

    Raises:
        Unreadable: it is none.
    """
    try:
        envelope = loads(raw.decode())
        properties: dict[str, Any] = {**_mapping(envelope["properties"]), "delivery_tag": tag}
        headers = _mapping(envelope.get("headers") or {})
        body = _body(envelope.get("body"), properties.get("body_encoding"))
        info = {**_mapping(properties.get("delivery_info") or {}), "routing_key": queue}
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as exc:
        raise Unreadable(f"it is no message of Celery's ({type(exc).__name__}: {exc})") from exc
    properties["delivery_info"] = info
    return Message(
        body=body, delivery_tag=tag, content_type=envelope.get("content-type"),
        content_encoding=envelope.get("content-encoding"), headers=dict(headers), properties=properties,
        delivery_info=info, postencode="utf-8", accept=accept, channel=channel,
    )  # fmt: skip


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"a mapping is expected, not {type(value).__name__}")
    return value


def _body(body: Any, encoding: Any) -> Any:
    if body is not None and not isinstance(body, str):
        raise TypeError(f"the body is a {type(body).__name__}")
    return base64.b64decode(body, validate=True) if body and encoding == "base64" else body
