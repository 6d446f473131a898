"""Messages that no worker can read: set apart whole and untouched, for a person to look at. Bounded, and expiring."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import redis.asyncio

from penstock.config.names import dead_messages_key, queue_key
from penstock.workers.broker.bells import ring
from penstock.workers.broker.leases import Leases
from penstock.workers.broker.message import Taken, read_id
from penstock.workers.lua import async_script, script

#: Most messages that are kept, and seconds for which they are, after the last one.
MOST, KEPT_S = 1000, 14 * 86_400
#: How a message's bytes are text in an entry: each is one character, so that they come back as they were.
_BYTES = "latin-1"


@dataclass(frozen=True)
class DeadMessage:
    """A message that was set apart.

    Args:
        queue: where it stood.
        why: what is wrong with it, without any of its contents.
        at: when it was set apart, in seconds of the epoch.
        task_id: its task's id, None where that cannot be read.
        raw: what stood on the queue.
        entry: what stands in the list, to find it again.
    """

    queue: str
    why: str
    at: float
    task_id: str | None
    raw: bytes
    entry: bytes

    def __repr__(self) -> str:
        return f"DeadMessage({self.queue}, {self.why!r}, {len(self.raw)} bytes)"


async def set_apart(client: redis.asyncio.Redis, prefix: str, leases: Leases, taken: Taken, why: str) -> None:
    """Move a message in flight to the dead ones, with the reason and the time, and let its lease go.

    Args:
        client: of the broker.
        prefix: prefix of all keys.
        leases: of this process.
        taken: the message.
        why: what is wrong with it, without any of its contents.
    """
    entry = orjson.dumps({"queue": taken.queue, "why": why, "at": time.time(), "message": taken.raw.decode(_BYTES)})
    await async_script(client, "broker/set_apart")(
        keys=[*leases.keys, dead_messages_key(prefix)], args=[taken.tag, entry, MOST, KEPT_S]
    )
    leases.drop(taken.tag)


def read_dead(client: redis.Redis, prefix: str, queues: Collection[str]) -> list[DeadMessage]:
    """Return the dead messages of some queues, the last one first."""
    entries: Any = client.lrange(dead_messages_key(prefix), 0, -1)
    found = [_read(entry) for entry in entries]
    return [each for each in found if each.queue in queues]


def requeue(client: redis.Redis, prefix: str, dead: DeadMessage) -> bool:
    """Put a dead message on its queue again, as it was. Returns whether it was still there, and could be."""
    keys = [dead_messages_key(prefix), queue_key(prefix, dead.queue)]
    done: bool = script(client, "broker/revive")(keys=keys, args=[dead.entry, dead.raw]) == 1
    if done:
        ring(client, prefix, [dead.queue])
    return done


def drop(client: redis.Redis, prefix: str, dead: DeadMessage) -> bool:
    """Drop a dead message for good. Returns whether it was still there."""
    return bool(client.lrem(dead_messages_key(prefix), 1, dead.entry))  # type: ignore[arg-type]


def _read(entry: bytes) -> DeadMessage:
    fields = orjson.loads(entry)
    raw = fields["message"].encode(_BYTES)
    return DeadMessage(fields["queue"], fields["why"], fields.get("at", 0.0), read_id(raw), raw, entry)
