"""What kombu's own Redis transport publishes is what workers of ours take: whole, in order, under our prefix alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Producer, Queue
from kombu.serialization import prepare_accept_content
from kombu.utils.json import loads

from penstock.config.celery import celery_settings
from penstock.config.names import bell_key, common_bell_key, queue_key, queue_name, unacked_index_key
from penstock.config.settings import load_settings
from penstock.tasks.backfill.dispatch.publisher import BatchPublisher
from penstock.tasks.backfill.plan.batch import Batch
from penstock.workers.broker.bells import RINGS, ring
from penstock.workers.broker.leases import Leases
from penstock.workers.broker.message import LeaseChannel, Taken, read_message
from support.app import own_app
from support.taking import Look, take
from support.valkey import ValkeyServer

NAME = queue_name("docs")
QUEUE = Queue(NAME, Exchange(NAME), routing_key=NAME)
OTHERS = "other:"


@pytest.fixture
def prefix(home: Path, broker_url: str) -> str:
    return load_settings().key_prefix


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def connect(valkey: ValkeyServer, **options: Any) -> Connection:
    """A connection as publishers of ours have it."""
    made = celery_settings(load_settings(), valkey.url, valkey.url)["broker_transport_options"]
    return Connection(valkey.url, transport_options={**made, **options})


@pytest.fixture
def publisher(valkey: ValkeyServer, prefix: str) -> Iterator[Connection]:
    with connect(valkey) as connection:
        yield connection


def publish(connection: Connection, *bodies: Any, **properties: Any) -> None:
    producer = Producer(connection)
    for body in bodies:
        producer.publish(body, exchange=QUEUE.exchange, routing_key=NAME, declare=[QUEUE], **properties)


def bodies(look: Look) -> list[Any]:
    """What was taken, as a task is given it."""
    accept = prepare_accept_content(["json"])
    leases: Any = None
    channel = LeaseChannel(leases)
    tagged = zip(look.tags, look.taken, strict=True)
    return [read_message(Taken(tag, queue, raw), channel, accept).decode() for tag, (queue, raw) in tagged]


def test_messages_are_taken_in_their_order(publisher: Connection, client: redis.Redis, prefix: str) -> None:
    publish(publisher, *({"n": n} for n in range(5)))
    assert bodies(take(client, prefix, only=[NAME])) == [{"n": n} for n in range(5)]


@pytest.mark.parametrize("size", [0, 100_000, 3_000_000])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_messages_of_all_sizes_pass_unchanged(
    publisher: Connection, client: redis.Redis, prefix: str, size: int, compression: str | None
) -> None:
    body = {"text": "ü" * (size // 2)}
    publish(publisher, body, compression=compression)
    assert bodies(take(client, prefix, only=[NAME])) == [body]


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"delivery_tag": "not-this-one"}},
        {"headers": {"note": '{"delivery_tag": "nor-this"}'}},
        {"correlation_id": '", "delivery_tag": "nor-that'},
        {"headers": {"delivery_tag": "x", "long": "y" * 20_000}},
    ],
)
def test_a_lease_is_under_a_tag_of_its_own_whatever_a_message_says(
    publisher: Connection, client: redis.Redis, prefix: str, more: dict[str, Any]
) -> None:
    publish(publisher, {"delivery_tag": "in-the-body"}, **more)
    look = take(client, prefix, only=[NAME])
    assert [tag.decode() for tag in client.zrange(unacked_index_key(prefix), 0, -1)] == look.tags
    assert bodies(look) == [{"delivery_tag": "in-the-body"}]


def test_messages_of_all_priorities_are_on_the_one_list_that_is_read(
    publisher: Connection, client: redis.Redis, prefix: str
) -> None:
    for priority in (0, 3, 9):
        publish(publisher, {"priority": priority}, priority=priority)
    assert [body["priority"] for body in bodies(take(client, prefix, only=[NAME]))] == [0, 3, 9]


def test_two_prefixes_on_one_server_do_not_meet(
    publisher: Connection, valkey: ValkeyServer, client: redis.Redis, prefix: str
) -> None:
    with connect(valkey, global_keyprefix=OTHERS) as other:
        publish(other, {"n": 1})
    assert take(client, prefix, only=[NAME]).taken == []
    assert bodies(take(client, OTHERS, only=[NAME])) == [{"n": 1}]
    publish(publisher, {"n": 2})
    take(client, prefix, only=[NAME])
    assert all(key.decode().startswith((prefix, OTHERS)) for key in client.keys("*"))


def test_what_an_earlier_version_held_when_it_died_is_restored(
    valkey: ValkeyServer, client: redis.Redis, prefix: str
) -> None:
    with connect(valkey, unacked_key="unacked", unacked_index_key="unacked_index") as connection:
        publish(connection, {"n": 1})
        held = connection.channel().basic_get(NAME)
        held.channel.qos._delivered.clear()  # it hands nothing back at its end
        client.zadd(unacked_index_key(prefix), {held.delivery_tag: time.time() - 60})
    leases = Leases(lambda: valkey.client(), prefix, 3600.0, 20.0, lambda: None)
    leases.restore_lapsed()
    leases.close()
    (raw,) = client.lrange(queue_key(prefix, NAME), 0, -1)
    assert loads(raw.decode())["properties"]["delivery_info"]["redelivered"] is True
    assert bodies(take(client, prefix, only=[NAME])) == [{"n": 1}]


def test_kombu_never_restores_what_we_hold(publisher: Connection, client: redis.Redis, prefix: str) -> None:
    publish(publisher, {"n": 1})
    (tag,) = take(client, prefix, only=[NAME]).tags
    client.zadd(unacked_index_key(prefix), {tag: time.time() - 3600})
    publisher.channel().qos.restore_visible()
    assert client.zscore(unacked_index_key(prefix), tag) is not None
    assert client.llen(queue_key(prefix, NAME)) == 0


def test_a_backfills_batches_cost_few_round_trips_and_wake_workers(
    client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [Batch(n, f"0b7d3c1e-8b1f-4b5e-9a35-{n:012}", ["a text"], [], [], 90, b"") for n in range(100)]
    sender = BatchPublisher(own_app("publisher"), "docs")
    sender.send(batches[:1])
    round_trips = Counter[str]()

    def execute(pipeline: redis.client.Pipeline, *args: Any, **options: Any) -> Any:
        round_trips["pipelines"] += 1
        return whole(pipeline, *args, **options)

    def execute_command(one: redis.Redis, *args: Any, **options: Any) -> Any:
        round_trips[args[0]] += 1
        return single(one, *args, **options)

    whole, single = redis.client.Pipeline.execute, redis.Redis.execute_command
    with monkeypatch.context() as counted:
        counted.setattr(redis.client.Pipeline, "execute", execute)
        counted.setattr(redis.Redis, "execute_command", execute_command)
        sender.send(batches)
    sender.close()
    assert round_trips.total() <= 8, round_trips
    assert client.llen(queue_key(prefix, sender.queue)) == 101
    assert client.llen(common_bell_key(prefix)) == 2
    assert len(take(client, prefix, room=64, allowances={sender.queue: 64}).taken) == 64


def test_bells_that_nobody_hears_neither_pile_up_nor_stay(client: redis.Redis, prefix: str) -> None:
    client.lpush(queue_key(prefix, NAME), b"{}")
    for _ in range(3 * RINGS):
        ring(client, prefix, [NAME])
    for bell in (bell_key(prefix, NAME), common_bell_key(prefix)):
        assert client.llen(bell) == RINGS
        assert 0 < client.ttl(bell) <= 60
