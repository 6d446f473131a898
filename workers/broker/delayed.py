"""Messages that wait for a time and not for a lane: in Redis, in no worker's hands.

A task that has to look again later (is the image ready?) sets its own message aside. Until it is due the message is in
a sorted set; then the first worker that looks puts it on a queue again. No worker's slot is held meanwhile, nothing
sits in a worker as a Celery ETA, and whoever dies, the message is in exactly one place.

Polls of an operation come back on a queue of their own, ``operations_queue``, which the lane's gate lets pass:
what was submitted is looked after, though the lane may cool or be paused.
"""

from __future__ import annotations

from typing import Any

import redis.asyncio
from kombu.utils.json import dumps, loads

from penstock.config.names import (
    due_key,
    due_messages_key,
    holder_key,
    queue_key,
    unacked_index_key,
    unacked_key,
)
from penstock.config.redis import text
from penstock.workers.broker.bells import ring_async
from penstock.workers.broker.restore import give_again
from penstock.workers.lua import async_script

#: Messages put on their queues in one look.
AT_ONCE = 200


async def set_aside(
    client: redis.asyncio.Redis, prefix: str, tag: str, queue: str, delay_s: float, *, begun: bool = True
) -> bool:
    """Move a message in flight to where it waits until it is due. A task then has to end with Celery's ``Ignore``.

    Args:
        client: asyncio client of the broker.
        prefix: prefix of all keys.
        tag: the message's delivery tag. It comes back under another, so that this delivery's end is not its.
        queue: where it comes back.
        delay_s: seconds until then.
        begun: whether its task has begun, so that it comes back as delivered again.

    Returns:
        False where the message is not in flight on this broker; then nothing has been done.
    """
    unacked = unacked_key(prefix)
    kept: Any = await client.hget(unacked, tag)
    if kept is None:
        return False
    message = loads(text(kept))[0]
    new_tag = give_again(message, begun=begun)
    keys = [unacked_index_key(prefix), unacked, holder_key(prefix)]
    moved = await async_script(client, "broker/set_aside")(
        keys=[*keys, due_key(prefix), due_messages_key(prefix)],
        args=[tag, f"{new_tag} {queue}", dumps(message), delay_s * 1000],
    )
    return bool(moved == 1)


async def put_due(client: redis.asyncio.Redis, prefix: str) -> int:
    """Put messages that are due on their queues. Returns how many."""
    keys = [due_key(prefix), due_messages_key(prefix)]
    queues: Any = await async_script(client, "broker/due")(keys=keys, args=[queue_key(prefix, ""), AT_ONCE])
    await ring_async(client, prefix, [text(queue) for queue in queues])
    return len(queues)
