"""Messages set aside until they are due: on a real server, atomically, and on no queue meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from penstock.config.names import operations_queue
from penstock.config.redis import connect_async
from penstock.workers.broker.delayed import put_due, set_aside
from support.valkey import ValkeyServer

PREFIX = "t:"
QUEUE = operations_queue("pictures")


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as found:
        yield found


def take(client: redis.Redis, tag: str) -> None:
    """Put a message in flight, as the taking script does."""
    message = {"body": "e30=", "headers": {"id": "task"}, "properties": {"delivery_tag": tag}}
    client.zadd("t:unacked_index", {tag: time.time()})
    client.hset("t:unacked", tag, json.dumps([message, "", "penstock.pictures.interactive"]))
    client.hset("t:in-flight", tag, "penstock.pictures.interactive")


def let_time_pass(client: redis.Redis, seconds: float) -> None:
    """Have all that is set aside due so many seconds earlier."""
    members: Any = client.zrange("t:due", 0, -1)
    for member in members:
        client.zincrby("t:due", -1000 * seconds, member)


async def aside(valkey: ValkeyServer, tag: str, delay_s: float) -> bool:
    client = connect_async(valkey.url)
    try:
        return await set_aside(client, PREFIX, tag, QUEUE, delay_s)
    finally:
        await client.aclose()


async def put(valkey: ValkeyServer) -> int:
    client = connect_async(valkey.url)
    try:
        return await put_due(client, PREFIX)
    finally:
        await client.aclose()


async def test_it_is_in_one_place_at_a_time(valkey: ValkeyServer, client: redis.Redis) -> None:
    take(client, "tag-1")
    assert await aside(valkey, "tag-1", 3600)
    assert not client.exists("t:unacked", "t:unacked_index", "t:in-flight", f"t:{QUEUE}")
    assert client.zcard("t:due") == client.hlen("t:due-messages") == 1
    assert await put(valkey) == 0
    let_time_pass(client, 3599)
    assert await put(valkey) == 0
    let_time_pass(client, 1)
    assert await put(valkey) == 1
    assert not client.exists("t:due", "t:due-messages")
    assert client.llen(f"t:bell:{QUEUE}") == 1
    message: Any = json.loads(client.rpop(f"t:{QUEUE}"))  # type: ignore[arg-type]
    assert message["headers"] == {"id": "task", "redelivered": True}
    assert message["properties"]["delivery_info"]["redelivered"] is True
    assert message["properties"]["delivery_tag"] != "tag-1", "the old delivery's end would be this one's"


async def test_a_message_that_somebody_else_has_is_left_alone(valkey: ValkeyServer, client: redis.Redis) -> None:
    assert not await aside(valkey, "tag-1", 0)
    take(client, "tag-1")
    client.zrem("t:unacked_index", "tag-1")
    assert not await aside(valkey, "tag-1", 0)
    assert not client.exists("t:due", "t:due-messages")


async def test_those_due_come_in_the_order_in_which_they_are(valkey: ValkeyServer, client: redis.Redis) -> None:
    for tag, delay_s in [("a", 7200), ("b", 3600), ("c", 10_000)]:
        take(client, tag)
        assert await aside(valkey, tag, delay_s)
    let_time_pass(client, 7200)
    assert await put(valkey) == 2
    assert client.llen(f"t:{QUEUE}") == 2
    assert client.zcard("t:due") == 1
