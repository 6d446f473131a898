"""Leases on messages in flight: whose work it is, renewed while it is done, by this process as a whole.

A message that a worker has taken stands in the broker as unacknowledged, with the time of its last renewal by the
server's clock. A live worker renews every few seconds from a thread of its own, whatever its event loops do; when a
worker dies, its messages' leases run out and another worker puts them on their queues again.

Leases belong to the process, not to a connection: when the broker's connection breaks and comes back, work in flight
goes on, keeps its lease and is acknowledged over the new connection. (kombu would put such messages back on the queue
at reconnection, and they would run twice.)
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis
from kombu.utils.json import dumps, loads

from penstock.config.names import bell_key, holder_key, queue_key, unacked_index_key, unacked_key
from penstock.workers.broker.bells import BELLS
from penstock.workers.lua import script

logger = logging.getLogger(__name__)


class Leases:
    """The messages that this process has in flight on one broker.

    Args:
        connect: makes a client for the broker.
        prefix: prefix of all keys.
        heartbeat_s: seconds between renewals.
    """

    def __init__(self, connect: Callable[[], redis.Redis], prefix: str, heartbeat_s: float) -> None:
        self._connect, self._prefix, self._heartbeat_s = connect, prefix, heartbeat_s
        self._keys = [unacked_index_key(prefix), unacked_key(prefix), holder_key(prefix)]
        self._queues: dict[str, str] = {}
        self._late_acks: set[str] = set()
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def hold(self, tag: str, queue: str) -> None:
        """Note a message just taken from ``queue``; from now on its lease is renewed."""
        with self._lock:
            self._queues[tag] = queue
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew_forever, name="penstock-leases", daemon=True)
                self._thread.start()

    def holds(self, tag: str) -> bool:
        """Whether this process has the message in flight."""
        return tag in self._queues

    def in_flight(self) -> Counter[str]:
        """Messages in flight by queue."""
        with self._lock:
            return Counter(self._queues.values())

    def tags(self) -> list[str]:
        """Delivery tags in flight."""
        with self._lock:
            return list(self._queues)

    def drop(self, tag: str) -> None:
        """Forget a message without acknowledging it: somebody else has it, or shall have it."""
        with self._lock:
            self._queues.pop(tag, None)

    def ack(self, tag: str) -> None:
        """Acknowledge a message; if the broker is away, as soon as it is back."""
        self.drop(tag)
        try:
            self._ack([tag])
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            with self._lock:
                self._late_acks.add(tag)

    def put_back(self, tag: str, score: float | None = None) -> None:
        """Put an unacknowledged message on its queue again, as the next to be taken.

        Args:
            tag: its delivery tag.
            score: only if its lease still stands at this value (nobody has renewed it meanwhile).
        """
        self.drop(tag)  # first: if the broker is away, the lease runs out and another worker puts it back
        client = self._redis()
        kept: Any = client.hget(self._keys[1], tag)
        if kept is None:
            client.zrem(self._keys[0], tag)
            return
        message, _, queue = loads(kept.decode())
        message.setdefault("headers", {})["redelivered"] = True
        properties = message.setdefault("properties", {})
        properties.setdefault("delivery_info", {})["redelivered"] = True
        # A new tag: the one who had it until now, if he lives after all, can no longer acknowledge it.
        properties["delivery_tag"] = str(uuid4())
        script(client, "broker/restore")(
            keys=[*self._keys, queue_key(self._prefix, queue), bell_key(self._prefix, queue)],
            args=[tag, dumps(message), "" if score is None else repr(score), BELLS],
        )

    def close(self) -> None:
        """Stop renewing. What is still held runs out by itself."""
        self._closing.set()

    def _ack(self, tags: list[str]) -> None:
        with self._redis().pipeline(transaction=True) as pipe:
            index, *hashes = self._keys
            pipe.zrem(index, *tags)
            for each in hashes:
                pipe.hdel(each, *tags)
            pipe.execute()

    def _redis(self) -> redis.Redis:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _renew_forever(self) -> None:
        while not self._closing.wait(self._heartbeat_s):
            try:
                self.renew()
            except (redis.RedisError, OSError) as exc:
                logger.warning("leases could not be renewed (%s); trying again in %.0f s", exc, self._heartbeat_s)

    def renew(self) -> None:
        """Renew every lease now, and deliver acknowledgements that had found no broker."""
        with self._lock:
            late = list(self._late_acks)
        if late:
            self._ack(late)
            with self._lock:
                self._late_acks.difference_update(late)
        held = self.tags()
        if held:
            script(self._redis(), "broker/renew")(keys=self._keys[:1], args=held)
