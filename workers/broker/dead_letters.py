"""Messages that no worker can read: set apart whole and untouched, for a person to look at. Bounded, and expiring."""

from __future__ import annotations

from typing import Any, Protocol

import orjson
import redis.asyncio

from penstock.config.names import dead_messages_key
from penstock.workers.broker.leases import Leases

#: Most messages that are kept, and seconds for which they are.
MOST, KEPT_S = 1000, 14 * 86_400


class _Taken(Protocol):
    @property
    def tag(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def raw(self) -> bytes: ...


async def set_apart(client: redis.asyncio.Redis, prefix: str, leases: Leases, taken: _Taken, why: str) -> None:
    """Keep a message with the reason, then end its lease.

    Args:
        client: of the broker.
        prefix: prefix of all keys.
        leases: of this process.
        taken: the message.
        why: what is wrong with it, without any of its contents.
    """
    key = dead_messages_key(prefix)
    entry: dict[str, Any] = {"queue": taken.queue, "why": why, "message": taken.raw.decode("utf-8", "backslashreplace")}
    async with client.pipeline(transaction=True) as pipe:
        pipe.lpush(key, orjson.dumps(entry))
        pipe.ltrim(key, 0, MOST - 1)
        pipe.expire(key, KEPT_S)
        await pipe.execute()
    leases.ack(taken.tag)
