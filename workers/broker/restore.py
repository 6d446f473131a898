"""Puts messages that are in flight on their queues again: handed back by their worker, or left behind when it died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import redis
from kombu.utils.json import dumps, loads

from penstock.config.names import completed_key, origin_queue, queue_key
from penstock.workers.broker.bells import ring
from penstock.workers.broker.deaths import HEADER, Deaths, deaths_of
from penstock.workers.lua import script

logger = logging.getLogger(__name__)

OnConvicted = Callable[[str, str, bytes], object]


class Restorer:
    """Puts messages back. Its calls block.

    Args:
        client: of the broker.
        prefix: prefix of all keys.
        keys: of leases: their index, the messages, the holders.
        on_convicted: is given the tag, queue and contents of a message that kills its workers (``deaths``), and shall
            end its lease; None: such a message is put back as any other.
    """

    def __init__(
        self, client: redis.Redis, prefix: str, keys: Sequence[str], on_convicted: OnConvicted | None = None
    ) -> None:
        self._client, self._prefix, self._keys, self._on_convicted = client, prefix, keys, on_convicted

    def put_back(self, tags: Mapping[str, bool]) -> None:
        """Put messages of this process back; ``tags`` says of each whether its task has begun."""
        moves = [Move(tag, leased.queue, leased.again(begun=tags[tag])) for tag, leased in self._leased(list(tags))]
        self._move(moves)

    def outlive(self, scores: Mapping[str, float]) -> list[str]:
        """Put back messages whose workers have died: whose leases ran out. Returns the tags of those that were.

        Args:
            scores: by tag, when the lease was renewed, in seconds; one that was renewed since is left alone.
        """
        if not scores:
            return []
        moves, completed = [], int(self._client.get(completed_key(self._prefix)) or 0)
        for tag, leased in self._leased(list(scores)):
            deaths = _count(leased, completed)
            if deaths.convicted and self._on_convicted is not None:
                self._on_convicted(tag, leased.queue, leased.without_deaths())
            else:
                moves.append(Move(tag, leased.queue, leased.again(begun=True), repr(scores[tag])))
        return self._move(moves)

    def _leased(self, tags: Sequence[str]) -> list[tuple[str, Leased]]:
        """Return messages in flight; of those that are no more, the lease is forgotten."""
        kept: Any = self._client.hmget(self._keys[1], tags) if tags else []
        found = dict(zip(tags, kept, strict=True))
        gone = [tag for tag, raw in found.items() if raw is None]
        if gone:
            with self._client.pipeline(transaction=True) as pipe:
                end_leases(pipe, self._keys, gone)
                pipe.execute()
        return [(tag, _read(raw)) for tag, raw in found.items() if raw is not None]

    def _move(self, moves: Sequence[Move]) -> list[str]:
        """Move messages from "in flight" to their queues, all in one call. Returns the tags of those that were."""
        if not moves:
            return []
        keys = [*self._keys, *(queue_key(self._prefix, each.queue) for each in moves)]
        arguments = [part for each in moves for part in (each.tag, each.message, each.score)]
        restored = script(self._client, "broker/restore")(keys=keys, args=arguments)
        moved = [each for each, done in zip(moves, restored, strict=True) if done]
        ring(self._client, self._prefix, [each.queue for each in moved])
        return [each.tag for each in moved]


def end_leases(pipe: Any, keys: Sequence[str], tags: Sequence[str]) -> None:
    """End the leases of messages.

    Args:
        pipe: of the broker's client.
        keys: of leases: their index, the messages, the holders.
        tags: of the messages, one at least.
    """
    index, *hashes = keys
    pipe.zrem(index, *tags)
    for each in hashes:
        pipe.hdel(each, *tags)


@dataclass(frozen=True)
class Move:
    """A message that is to stand on a queue again. ``score`` is its lease's as it was read, "" for any."""

    tag: str
    queue: str
    message: str | bytes
    score: str = ""


@dataclass(frozen=True)
class Leased:
    """A message in flight.

    Args:
        queue: where it stood.
        body: what stood there, where that cannot be read.
        message: kombu's envelope with its headers and properties; None where it is none.
    """

    queue: str
    body: bytes
    message: dict[str, Any] | None

    def again(self, *, begun: bool) -> str | bytes:
        """Return it as it shall stand on its queue; one that cannot be read as it is: its next worker says why."""
        if self.message is None:
            return self.body
        give_again(self.message, begun=begun)
        return str(dumps(self.message))

    def without_deaths(self) -> bytes:
        """Return it without what is known of its workers' deaths."""
        assert self.message is not None
        headers = {name: value for name, value in self.message["headers"].items() if name != HEADER}
        return str(dumps(self.message | {"headers": headers})).encode()


def give_again(message: dict[str, Any], *, begun: bool) -> str:
    """Make a message one that is delivered anew; if its task has begun, it says so. Returns its new tag.

    Whoever had it under the old tag, if he lives after all, can no longer acknowledge it.
    """
    properties = message.setdefault("properties", {})
    if begun:
        message.setdefault("headers", {})["redelivered"] = True
        properties["delivery_info"] = {**(properties.get("delivery_info") or {}), "redelivered": True}
    tag = properties["delivery_tag"] = str(uuid4())
    return tag


def _count(leased: Leased, completed: int) -> Deaths:
    """Write another death of its worker down in a message. In one that cannot be read it is not: none is run."""
    if leased.message is None:
        return Deaths()
    headers, origin = leased.message["headers"], origin_queue(leased.queue)
    deaths = deaths_of(headers).one_more(alone=leased.queue != origin, completed=completed)
    deaths.write(headers)
    if deaths.suspect:
        logger.warning(
            "task %s on %s was in flight when its worker died, %d times with others and %d times alone: "
            "it is run alone from now on", headers.get("id"), origin, deaths.among, deaths.alone,
        )  # fmt: skip
    return deaths


def _read(raw: bytes) -> Leased:
    """Read ``[message, exchange, queue]``, as kombu and ``take.lua`` write it."""
    try:
        message, _, queue = loads(raw.decode())
        message["headers"] = dict(message.get("headers") or {})
        message["properties"] = dict(message.get("properties") or {})
        dict(message["properties"].get("delivery_info") or {})
        dumps(message)
    except Exception:  # kombu's JSON makes objects of what it reads, whose errors are of any kind
        body, _, name = raw[1:-1].rpartition(b', "", ')
        return Leased(str(loads(name.decode())), body, None)
    return Leased(queue, b"", message)
