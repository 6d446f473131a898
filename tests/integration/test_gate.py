"""The gate: which queue a worker takes from, by its lane's state; on a real server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.utils.json import dumps, loads

from penstock.config.endpoints.registry import Registry
from penstock.config.names import lane_key
from penstock.config.settings import load_settings
from penstock.workers.broker import transport
from penstock.workers.broker.gate import BULK_HORIZON_MS, INTERACTIVE_HORIZON_MS, Gate, Offer, share
from penstock.workers.lanes.constants import FORMAT
from penstock.workers.lanes.limiter import change_lane
from penstock.workers.lanes.window import FIRST
from penstock.workers.lua import script
from penstock.workers.runtime import runtime
from support.valkey import ValkeyServer
from support.waiting import wait_until

PREFIX = "gate:"
Taken = tuple[int, str]


class TaskClient:
    """Queues, lanes and the taking script."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.script = script(client, "broker/take")
        self.tags = 0

    def now_ms(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds) * 1000 + float(micros) / 1000

    def put(self, queue: str, count: int = 1) -> list[str]:
        """Put messages on a queue. Returns their tags."""
        tags = [f"tag-{self.tags + n}" for n in range(count)]
        self.tags += count
        for tag in tags:
            message = {"body": "eyJ9", "headers": {}, "properties": {"correlation_id": tag, "delivery_tag": tag}}
            self.client.lpush(f"{PREFIX}{queue}", dumps(message))
        return tags

    def lane(self, name: str, **fields: Any) -> str:
        """Have a lane; times are in ms from now. Returns its key."""
        now = self.now_ms()
        for field in ("cooldown_until", "requests.next_at", "tokens.next_at", "probe_until"):
            if field in fields:
                fields[field] = now + fields[field]
        key = lane_key(PREFIX, name)
        self.client.hset(key, mapping={"format": FORMAT, **fields})
        return key

    def take(self, *offers: Offer) -> Taken:
        """Return (queue's number from 1, tag), or (0, ms to wait)."""
        keys = [f"{PREFIX}unacked_index", f"{PREFIX}unacked", f"{PREFIX}in-flight"]
        keys += [f"{PREFIX}{offer.queue}" for offer in offers] + [offer.lane for offer in offers]
        names = [part for offer in offers for part in (offer.queue, offer.job_class)]
        index, item = self.script(keys=keys, args=[BULK_HORIZON_MS, INTERACTIVE_HORIZON_MS, *names])
        if index:
            return index, loads(item.decode())["properties"]["delivery_tag"]
        return 0, item.decode()


@pytest.fixture
def task_client(valkey: ValkeyServer) -> Iterator[TaskClient]:
    with valkey.client() as client:
        yield TaskClient(client)


OPEN, SHUT = True, False


@pytest.mark.parametrize(
    ("fields", "job_class", "taken", "wait_ms"),
    [
        ({}, "bulk", OPEN, None),
        ({}, "interactive", OPEN, None),
        ({"paused": 1}, "bulk", SHUT, None),
        ({"paused": 1}, "interactive", SHUT, None),
        ({"state": "parked"}, "bulk", SHUT, None),
        ({"state": "parked"}, "interactive", OPEN, None),  # it is told at once that the lane is parked
        ({"cooldown_until": 5000}, "bulk", SHUT, 5000),
        ({"cooldown_until": 5000}, "interactive", SHUT, 5000),
        ({"cooldown_until": -5000}, "bulk", OPEN, None),
        ({"state": "parked", "cooldown_until": 5000}, "interactive", OPEN, None),
        ({"state": "probing", "probe_until": 4000}, "interactive", SHUT, 4000),
        ({"state": "probing", "probe_until": -1}, "bulk", OPEN, None),
        ({"state": "parked", "paused": 1}, "interactive", SHUT, None),  # the operator knows: it waits
        # A newer version's: its fields may mean something else.
        ({"format": FORMAT + 1}, "bulk", SHUT, None),
        ({"format": FORMAT + 1}, "interactive", OPEN, None),  # it is told at once that this side is to be upgraded
        # Ahead of its schedule.
        ({"requests.next_at": 100}, "bulk", OPEN, None),
        ({"requests.next_at": 650}, "bulk", SHUT, 500),
        ({"requests.next_at": 650, "tokens.next_at": 1150}, "bulk", SHUT, 1000),
        ({"requests.next_at": 650}, "interactive", OPEN, None),
        ({"tokens.next_at": 3000}, "interactive", SHUT, 2000),
        # Bulk that was made to wait for interactive work may take that much earlier.
        ({"requests.next_at": 650, "bulk_credit_ms": 600}, "bulk", OPEN, None),
        ({"requests.next_at": 650, "bulk_credit_ms": 300}, "bulk", SHUT, 200),
        ({"tokens.next_at": 3000, "bulk_credit_ms": 60000}, "interactive", SHUT, 2000),
    ],
)
def test_a_message_is_taken_when_its_lane_may_send(
    task_client: TaskClient, fields: dict[str, Any], job_class: str, taken: bool, wait_ms: int | None
) -> None:
    (tag,) = task_client.put("q")
    lane = task_client.lane("a", **fields)
    index, item = task_client.take(Offer("q", lane, job_class))
    if taken:
        assert (index, item) == (1, tag)
        return
    assert index == 0
    assert item == "" if wait_ms is None else wait_ms - 100 < int(item) <= wait_ms
    assert task_client.client.llen(f"{PREFIX}q") == 1, "it waits in the broker"


def test_what_is_taken_is_noted_in_the_same_step_by_the_servers_clock(task_client: TaskClient) -> None:
    (tag,) = task_client.put("q")
    before = task_client.now_ms() / 1000
    task_client.take(Offer("q"))
    ((noted, score),) = task_client.client.zrange(f"{PREFIX}unacked_index", 0, -1, withscores=True)
    assert noted.decode() == tag
    assert before - 1 <= score <= task_client.now_ms() / 1000 + 1
    message, exchange, queue = loads(task_client.client.hget(f"{PREFIX}unacked", tag).decode())
    assert (message["properties"]["delivery_tag"], exchange, queue) == (tag, "", "q")
    assert task_client.client.hget(f"{PREFIX}in-flight", tag) == b"q"


def test_a_closed_lane_holds_up_no_other(task_client: TaskClient) -> None:
    task_client.put("cold", 3)
    tags = task_client.put("warm", 2)
    offers = [
        Offer("cold", task_client.lane("cold", cooldown_until=60_000), "bulk"),
        Offer("warm", task_client.lane("warm"), "bulk"),
    ]
    assert [task_client.take(*offers) for _ in range(2)] == [(2, tag) for tag in tags]
    index, wait = task_client.take(*offers)
    assert index == 0
    assert 59_000 < int(wait) <= 60_000


def test_the_wait_is_until_the_first_lane_with_something_to_do_opens(task_client: TaskClient) -> None:
    task_client.put("soon")
    task_client.put("later")
    offers = [
        Offer("later", task_client.lane("later", cooldown_until=9000), "bulk"),
        Offer("soon", task_client.lane("soon", cooldown_until=3000), "bulk"),
        Offer("empty", task_client.lane("empty", cooldown_until=500), "bulk"),
        Offer("paused", task_client.lane("paused", paused=1), "bulk"),
    ]
    index, wait = task_client.take(*offers)
    assert index == 0
    assert 2900 < int(wait) <= 3000


def test_queues_are_looked_at_in_the_order_of_the_offers(task_client: TaskClient) -> None:
    first, second = task_client.put("a") + task_client.put("b")
    assert task_client.take(Offer("b"), Offer("a")) == (1, second)
    assert task_client.take(Offer("b"), Offer("a")) == (2, first)
    assert task_client.take(Offer("b"), Offer("a")) == (0, "")


def test_messages_of_one_queue_come_in_order(task_client: TaskClient) -> None:
    tags = task_client.put("q", 5)
    assert [task_client.take(Offer("q"))[1] for _ in range(5)] == tags


# What only the process knows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefetch", "queues", "most"),
    [(100, 1, 100), (100, 2, 100), (100, 3, 75), (4, 3, 3), (2, 3, 1), (1, 3, 1), (0, 9, 1_000_000)],
)
def test_one_lane_never_has_all_the_room_where_there_are_others(prefetch: int, queues: int, most: int) -> None:
    assert share(prefetch, queues) == most


def put(client: redis.Redis, inference_id: str, rpm: float | None = 600) -> str:
    """Put an endpoint with a quota of its own. Returns the quota's name."""
    settings = {"api_key": "a-key-of-no-worth", "model_id": inference_id, "rate_limit": {"requests_per_minute": rpm}}
    body = {"service": "openai", "service_settings": settings}
    return Registry(client, load_settings()).put("text_embedding", inference_id, body).quota


@pytest.fixture
def gate(valkey: ValkeyServer, home: Path, broker_url: str) -> Iterator[tuple[Gate, redis.Redis]]:
    with valkey.client() as client:
        yield Gate(runtime()), client


def bulk(inference_id: str) -> str:
    return f"penstock.{inference_id}.bulk"


def interactive(inference_id: str) -> str:
    return f"penstock.{inference_id}.interactive"


def test_interactive_queues_come_first_and_queues_without_a_lane_are_always_open(
    gate: tuple[Gate, redis.Redis],
) -> None:
    made, client = gate
    quota = put(client, "gate-one")
    queues = [bulk("gate-one"), "penstock", interactive("gate-one"), bulk("no-such-endpoint")]
    lane = lane_key(load_settings().key_prefix, quota)
    assert made.offers(queues, Counter(), 100) == [
        Offer("penstock"),
        Offer(interactive("gate-one"), lane, "interactive"),
        Offer(bulk("no-such-endpoint")),
        Offer(bulk("gate-one"), lane, "bulk"),
    ]


def test_a_queue_of_which_a_window_is_in_flight_is_left_out(gate: tuple[Gate, redis.Redis]) -> None:
    made, client = gate
    held = runtime().quotas.of(put(client, "gate-two")).window
    held.rate, held.latency_s = 10.0, 1.0
    size = held.size(100)
    queue = bulk("gate-two")
    assert [offer.queue for offer in made.offers([queue], Counter({queue: size - 1}), 100)] == [queue]
    assert made.offers([queue], Counter({queue: size}), 100) == []
    assert made.offers([interactive("gate-two")], Counter({queue: size}), 100), "each class has its own"


def test_endpoints_of_one_quota_share_one_lane(gate: tuple[Gate, redis.Redis]) -> None:
    made, client = gate
    settings = {"api_key": "a-key-of-no-worth", "model_id": "shared"}
    for inference_id, dimensions in (("small", 64), ("large", 256)):
        body = {"service": "openai", "service_settings": {**settings, "dimensions": dimensions}}
        Registry(client, load_settings()).put("text_embedding", inference_id, body)
    small, large = made.offers([bulk("small"), bulk("large")], Counter(), 100)
    assert small.lane == large.lane != ""


# A worker's channel ------------------------------------------------------------------------------------------------


@pytest.fixture
def channel(valkey: ValkeyServer, home: Path, broker_url: str) -> Iterator[Callable[..., Any]]:
    """Consume lanes with our transport, as a worker does: ``held = channel("a", prefetch=20)``."""
    prefix = load_settings().key_prefix
    options = {"global_keyprefix": prefix, "priority_steps": [0], "visibility_timeout": 20.0}
    connection = Connection(transport.broker_url(valkey.url), transport_options=options)

    def start(*queues: str, prefetch: int = 20) -> tuple[list[str], Callable[[], None]]:
        held: list[str] = []
        wanted = [Queue(name, Exchange(name), routing_key=name) for name in queues]
        consumer = Consumer(connection, wanted, accept=["json"])
        consumer.register_callback(lambda body, message: held.append(message.delivery_info["routing_key"]))
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()

        def turn() -> None:
            with suppress(TimeoutError, Empty):
                connection.drain_events(timeout=0.1)

        return held, turn

    yield start
    connection.close()
    for leases in transport._leases.values():
        leases.close()
    transport._leases.clear()


def fill(valkey: ValkeyServer, queue: str, count: int) -> None:
    options = {"global_keyprefix": load_settings().key_prefix, "priority_steps": [0]}
    with Connection(transport.broker_url(valkey.url), transport_options=options) as connection:
        producer = Producer(connection)
        declared = Queue(queue, Exchange(queue), routing_key=queue)
        producer.publish({"n": -1}, exchange=declared.exchange, routing_key=queue, declare=[declared])
        with producer.batch(500):
            for n in range(1, count):
                producer.publish({"n": n}, exchange=declared.exchange, routing_key=queue)


def test_a_worker_holds_its_window_of_a_lane_however_much_waits(
    channel: Callable[..., Any], gate: tuple[Gate, redis.Redis], valkey: ValkeyServer
) -> None:
    _, client = gate
    held_window = runtime().quotas.of(put(client, "deep")).window
    held_window.rate, held_window.latency_s = 10.0, 0.1
    fill(valkey, bulk("deep"), 2000)
    held, turn = channel(bulk("deep"), prefetch=100)
    for _ in range(10):
        turn()
    assert len(held) == held_window.size(100) < 10
    key = f"{load_settings().key_prefix}{bulk('deep')}"
    assert client.llen(key) == 2000 - len(held), "the rest waits in the broker"


def test_a_lane_that_cools_is_left_alone_and_the_others_have_its_room(
    channel: Callable[..., Any], gate: tuple[Gate, redis.Redis], valkey: ValkeyServer
) -> None:
    _, client = gate
    cold, _warm = put(client, "cold"), put(client, "warm", None)
    now = time.time() * 1000
    client.hset(lane_key(load_settings().key_prefix, cold), mapping={"format": FORMAT, "cooldown_until": now + 60_000})
    for name in ("cold", "warm"):
        fill(valkey, bulk(name), 30)
    held, turn = channel(bulk("cold"), bulk("warm"), prefetch=FIRST)
    for _ in range(10):
        turn()
    assert held == [bulk("warm")] * FIRST


def test_a_paused_lane_is_taken_from_within_about_a_second_after_resume(
    channel: Callable[..., Any], gate: tuple[Gate, redis.Redis], valkey: ValkeyServer
) -> None:
    _, client = gate
    prefix, quota = load_settings().key_prefix, put(client, "stopped")
    change_lane(client, prefix, quota, "paused", "for a test")
    fill(valkey, bulk("stopped"), 3)
    held, turn = channel(bulk("stopped"))
    for _ in range(5):
        turn()
    assert not held
    change_lane(client, prefix, quota, "resume")
    resumed = time.monotonic()
    wait_until(lambda: turn() or held, "a message is taken", 10)
    assert time.monotonic() - resumed < 3
