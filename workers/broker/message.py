"""A message off a lane's queue as Celery's worker takes it: kombu's, with a channel of ours that ends its lease."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kombu.message import Message
from kombu.utils.json import loads

from penstock.config.names import origin_queue
from penstock.workers.broker.leases import Leases


class Unreadable(Exception):
    """What was on the queue is no message: not an envelope, cut, or of the wrong types."""


@dataclass(frozen=True)
class Taken:
    """A message just taken: its lease's tag, its queue, and what stood there."""

    tag: str
    queue: str
    raw: bytes


class LeaseChannel:
    """What a ``kombu.message.Message`` asks of its channel."""

    #: kombu's: consumers that want no acknowledgements. There are none here.
    no_ack_consumers: frozenset[str] = frozenset()

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def begin(self, delivery_tag: str) -> None:
        """Note that the message's task begins."""
        self._leases.begin(delivery_tag)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """End the lease: the message is done."""
        self._leases.ack(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """End the lease: the message is dropped, or goes back as the next to be taken."""
        if requeue:
            self._leases.put_back(delivery_tag)
        else:
            self._leases.ack(delivery_tag)


def read_message(taken: Taken, channel: LeaseChannel, accept: Any) -> Message:
    """Make a message of what stood on a queue.

    Args:
        taken: kombu's envelope, as its Redis transport writes it.
        channel: ends the lease.
        accept: content types that may be read.

    Raises:
        Unreadable: it is none.
    """
    try:
        envelope = _mapping(loads(taken.raw.decode()))
        properties: dict[str, Any] = {**_mapping(envelope["properties"]), "delivery_tag": taken.tag}
        headers = _mapping(envelope.get("headers") or {})
        _check_headers(headers)
        body = _body(envelope.get("body"), properties.get("body_encoding"))
        info = {**_mapping(properties.get("delivery_info") or {}), "routing_key": origin_queue(taken.queue)}
    except Unreadable:
        raise
    except Exception as exc:  # kombu's JSON makes objects of what it reads, whose errors are of any kind
        raise Unreadable(f"it is no message of Celery's ({type(exc).__name__})") from exc
    properties["delivery_info"] = info
    message = Message(
        body=body, delivery_tag=taken.tag, content_type=envelope.get("content-type"),
        content_encoding=envelope.get("content-encoding"), headers=dict(headers), properties=properties,
        delivery_info=info, postencode="utf-8", accept=accept, channel=channel,
    )  # fmt: skip
    if message.errors:  # kombu decompresses at once, and keeps what went wrong
        raise Unreadable(f"its body cannot be decompressed ({_name(message.errors[0][0])})")
    return message


def _name(kind: type[BaseException] | None) -> str:
    return kind.__name__ if kind else "unknown"


def read_id(raw: bytes) -> str | None:
    """Return the id of a message's task, None where that cannot be read."""
    try:
        envelope = loads(raw.decode())
        found = (envelope.get("headers") or {}).get("id") or envelope["properties"].get("correlation_id")
    except Exception:  # see read_message
        return None
    return found if _is_name(found) else None


def check_body(message: Message) -> None:
    """Check that Celery can make a task of a message's body: of what it has once begun, it tells the sender nothing.

    Raises:
        Unreadable: it cannot.
    """
    try:
        body = message.payload
    except Exception as exc:  # a decoder's errors are of any kind
        raise Unreadable(f"its body cannot be decoded ({type(exc).__name__})") from exc
    if "task" not in message.headers or isinstance(body, Mapping):
        return  # the older protocol, which Celery checks
    if not isinstance(body, list | tuple) or len(body) != 3:
        raise Unreadable("its body is no list of arguments, keywords and the rest")
    args, kwargs, rest = body
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping) or not isinstance(rest, Mapping | None):
        raise Unreadable("its arguments are of wrong types")


def _check_headers(headers: Mapping[str, Any]) -> None:
    # An older protocol has them in the body, where Celery itself looks.
    if "task" not in headers:
        return
    for name in ("task", "id"):
        if not _is_name(headers.get(name)):
            raise Unreadable(f"its header {name!r} is no text")
    limits = headers.get("timelimit") or ()
    if not isinstance(limits, list | tuple) or not all(isinstance(each, int | float | None) for each in limits):
        raise Unreadable("its header 'timelimit' has no two numbers of seconds")


def _is_name(value: Any) -> bool:
    """Whether it is a text that can be part of a key: JSON may spell half a character."""
    return isinstance(value, str) and bool(value) and value.encode(errors="replace").decode() == value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unreadable(f"a mapping is expected in it, not {type(value).__name__}")
    return value


def _body(body: Any, encoding: Any) -> Any:
    if body is not None and not isinstance(body, str):
        raise Unreadable(f"its body is a {type(body).__name__} and no text")
    return base64.b64decode(body, validate=True) if body and encoding == "base64" else body
