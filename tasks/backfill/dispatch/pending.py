"""Finds which messages are still with the broker: waiting in the queue, or with a worker. Redis brokers only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import redis

from penstock.config.names import queue_key, unacked_key
from penstock.config.settings import Settings

_TASK_ID = re.compile(rb'\\?"correlation_id\\?": ?\\?"([0-9a-f-]{36})')
_SLICE = 16


class PendingMessages:
    """The messages of one queue and of all workers.

    Args:
        client: of the broker, answering with bytes.
        settings: for the keys' prefix.
        queue: the queue's name.
    """

    def __init__(self, client: redis.Redis, settings: Settings, queue: str) -> None:
        self._client = client
        self._queue = queue_key(settings.key_prefix, queue)
        self._unacked = unacked_key(settings.key_prefix)

    def tasks(self) -> set[str]:
        """Return the ids of the tasks whose messages are there.

        A message that is handed back while we look may be missed: what is missing must be missing twice.
        """
        return {match.group(1).decode() for data in self._messages() if (match := _TASK_ID.search(data))}

    def _messages(self) -> Iterator[bytes]:
        # From the end at which messages are put to the one at which they are taken, then those taken: the way they go.
        start = 0
        while some := cast("list[bytes]", self._client.lrange(self._queue, start, start + _SLICE - 1)):
            yield from some
            start += len(some)
        cursor: Any = 0
        while True:
            cursor, found = cast(
                "tuple[Any, dict[bytes, bytes]]", self._client.hscan(self._unacked, cursor, count=_SLICE)
            )
            yield from found.values()
            if not cursor:
                return


class UnknownMessages:
    """A broker that cannot be looked into: RabbitMQ, which keeps what it has taken."""

    def tasks(self) -> None:
        """See Seeker."""
        return
