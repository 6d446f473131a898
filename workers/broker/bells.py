"""Bells: how publishers wake a worker that has nothing to do, and tell which queues have work.

A lost ring costs at most a second, in which a worker looks by itself; a lost message could never be had back. So the
message is published first, as any Celery does it, and the bell is rung after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import redis
import redis.asyncio

from penstock.config.names import BULK, INTERACTIVE, SUSPECTS_CLASS, bell_key, common_bell_key, work_key
from penstock.config.redis import connect
from penstock.workers.lua import async_script, script

#: Most rings that a bell keeps: workers that could be woken at once.
RINGS = 16


def ring(client: redis.Redis, prefix: str, queues: Iterable[str]) -> None:
    """Tell that queues have work, and wake a worker for each.

    Args:
        client: of the broker.
        prefix: prefix of all keys.
        queues: their names, without the prefix.
    """
    found = list(dict.fromkeys(queues))
    if found:
        script(client, "broker/ring")(keys=_keys(prefix), args=[prefix, bell_key(prefix, ""), RINGS, *found])


async def ring_async(client: redis.asyncio.Redis, prefix: str, queues: Iterable[str]) -> None:
    """As ``ring``, on an event loop."""
    found = list(dict.fromkeys(queues))
    if found:
        await async_script(client, "broker/ring")(
            keys=_keys(prefix), args=[prefix, bell_key(prefix, ""), RINGS, *found]
        )


class Bell:
    """How a process that publishes rings. A ring that cannot be had costs at most a second, never the publication.

    Args:
        url: of the broker, a Redis.
        prefix: prefix of all keys.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix
        self._client: redis.Redis | None = None

    def ring(self, queues: Iterable[str]) -> None:
        """Tell that queues have work. A queue may be named with the prefix of all keys or without."""
        if self._client is None:
            self._client = connect(self._url)
        with contextlib.suppress(redis.RedisError, OSError):
            ring(self._client, self._prefix, [queue.removeprefix(self._prefix) for queue in queues])


def bells(prefix: str, only: Iterable[str] | None) -> list[str]:
    """Return the keys that a worker waits on: the common bell, or those of the queues that it was told."""
    return [common_bell_key(prefix)] if only is None else [bell_key(prefix, queue) for queue in only]


def _keys(prefix: str) -> list[str]:
    indexes = [work_key(prefix, each) for each in (INTERACTIVE, BULK, SUSPECTS_CLASS)]
    return [*indexes, common_bell_key(prefix)]
