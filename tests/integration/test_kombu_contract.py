"""What our transport leans on in kombu 5.7, and that it and kombu's own Redis transport understand each other.

When kombu is updated and a test of the first part fails, ``workers/broker/transport.py`` must be read again beside
kombu's new ``transport/redis.py`` before the pin in ``pyproject.toml`` is moved.
"""

from __future__ import annotations

import base64
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty
from typing import Any

import kombu
import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.asynchronous import Hub
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from penstock.workers.broker import transport
from penstock.workers.broker.transport import broker_url
from support.valkey import ValkeyServer

PREFIX = "contract:"
OPTIONS = {"global_keyprefix": PREFIX, "priority_steps": [0], "visibility_timeout": 20.0}
QUEUE = Queue("contract.queue", Exchange("contract.queue"), routing_key="contract.queue")


# What we override and call -----------------------------------------------------------------------------------------

SIGNATURES: list[tuple[Callable[..., Any], list[str]]] = [
    # Overridden: a changed signature would mean a changed purpose.
    (stock.Channel._brpop_start, ["self", "timeout"]),
    (stock.Channel._brpop_read, ["self", "options"]),
    (stock.Channel._get, ["self", "queue"]),
    (stock.Channel._has_queue, ["self", "queue", "kwargs"]),
    (stock.Channel._put, ["self", "queue", "message", "kwargs"]),
    (stock.Channel._restore, ["self", "message", "leftmost"]),
    (stock.QoS.append, ["self", "message", "delivery_tag"]),
    (stock.QoS.ack, ["self", "delivery_tag"]),
    (stock.QoS.reject, ["self", "delivery_tag", "requeue"]),
    (stock.QoS.restore_unacked, ["self", "client"]),
    (stock.QoS.restore_visible, ["self", "start", "num", "interval"]),
    (stock.MultiChannelPoller.on_poll_start, ["self"]),
    (stock.MultiChannelPoller.get, ["self", "callback", "timeout"]),
    # Called.
    (stock.Channel._connparams, ["self", "asynchronous"]),
    (stock.Channel._flush_brpop_reauth, ["self"]),
    (stock.Channel.conn_or_acquire, ["self", "client"]),
    (stock.PublishBatch.add, ["self", "name", "args"]),
    (virtual.QoS.ack, ["self", "delivery_tag"]),
    (virtual.QoS.append, ["self", "message", "delivery_tag"]),
    (virtual.QoS.can_consume, ["self"]),
    (virtual.QoS._flush, ["self"]),
    (virtual.Transport._deliver, ["self", "message", "queue"]),
    (Hub.call_soon, ["self", "callback", "args"]),
    (Hub.call_later, ["self", "delay", "callback", "args"]),
]


def test_this_is_the_kombu_that_the_transport_was_written_for() -> None:
    assert kombu.__version__.startswith("5.7.")


@pytest.mark.parametrize(("method", "parameters"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", ""))
def test_a_method_has_the_parameters_that_we_count_on(method: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (stock.Channel, ["active_queues", "client", "pool", "qos", "_update_queue_cycle"]),
        (stock.Channel, ["global_keyprefix", "unacked_key", "unacked_index_key", "priority_steps"]),
        (stock.Channel, ["_in_poll", "_brpop_sent_at"]),
        (virtual.QoS, ["prefetch_count"]),
        (stock.Transport, ["Channel", "register_with_event_loop", "supports_batch_publish"]),
    ],
)
def test_what_we_read_is_there(owner: type, names: list[str]) -> None:
    for name in names:
        assert hasattr(owner, name), name


def test_the_poller_is_the_transports_cycle_and_lists_its_channels(ours: Connection) -> None:
    assert type(stock.Transport.__init__).__name__ == "function"
    channel = ours.channel()
    assert isinstance(ours.transport.cycle, transport.Poller)
    assert channel in ours.transport.cycle._channels
    assert (stock.Channel.unacked_key, stock.Channel.unacked_index_key) == ("unacked", "unacked_index")
    assert channel.brpop_timeout == 1
    queues = channel._queue_cycle
    assert callable(queues.consume)
    assert callable(queues.rotate)


def test_our_own_option_is_passed_on(valkey: ValkeyServer, home: Path) -> None:
    with connect(broker_url(valkey.url), heartbeat_s=1.5) as connection:
        assert connection.channel().heartbeat_s == 1.5


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("redis://h:6379/0", "penstock://h:6379/0"),
        ("REDIS://h", "penstock://h"),
        ("redis+socket:///tmp/s?virtual_host=0", "penstock+socket:///tmp/s?virtual_host=0"),
        ("rediss://h/0", "penstocks://h/0?ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://h/0?a=b", "penstocks://h/0?a=b&ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://h/0?ssl_cert_reqs=none", "penstocks://h/0?ssl_cert_reqs=none"),
        ("amqp://guest@h//", "amqp://guest@h//"),
        ("memory://", "memory://"),
        ("nonsense", "nonsense"),
    ],
)
def test_redis_urls_get_our_scheme_and_others_stay(given: str, wanted: str) -> None:
    assert broker_url(given) == wanted


# Both understand each other ----------------------------------------------------------------------------------------


def connect(url: str, **options: Any) -> Connection:
    return Connection(url, transport_options={**OPTIONS, **options})


@pytest.fixture
def ours(valkey: ValkeyServer, home: Path, broker_url: str) -> Iterator[Connection]:
    """A connection of our transport."""
    with connect(transport.broker_url(valkey.url)) as connection:
        yield connection
    for leases in transport._leases.values():
        leases.close()
    transport._leases.clear()


@pytest.fixture
def theirs(valkey: ValkeyServer) -> Iterator[Connection]:
    """A connection of kombu's own transport."""
    with connect(valkey.url) as connection:
        yield connection


def publish(connection: Connection, *bodies: Any, queue: Queue = QUEUE, **properties: Any) -> None:
    producer = Producer(connection)
    for body in bodies:
        producer.publish(body, exchange=queue.exchange, routing_key=queue.routing_key, declare=[queue], **properties)


def consume(connection: Connection, count: int, queue: Queue = QUEUE, timeout: float = 10.0) -> list[Any]:
    """Take and acknowledge so many messages, and no more."""
    got: list[Any] = []

    def take(body: Any, message: Any) -> None:
        message.ack()
        got.append(body)

    end = time.monotonic() + timeout
    with Consumer(connection, queue, callbacks=[take], accept=["json"]) as consumer:
        consumer.qos(prefetch_count=1)
        while len(got) < count and time.monotonic() < end:
            drain(connection, 0.2)
    return got


def drain(connection: Connection, timeout: float) -> None:
    with suppress(TimeoutError, Empty):
        connection.drain_events(timeout=timeout)


def test_what_kombus_own_transport_publishes_is_found_within_about_a_second(
    ours: Connection, theirs: Connection
) -> None:
    got: list[float] = []
    with Consumer(ours, QUEUE, callbacks=[lambda body, message: (message.ack(), got.append(time.monotonic()))]):
        drain(ours, 0.1)  # now it waits on its bells, which nobody will ring
        published = time.monotonic()
        publish(theirs, {"n": 1})
        while not got and time.monotonic() < published + 10:
            drain(ours, 0.1)
    assert got
    assert got[0] - published < 3.0


def test_what_our_transport_publishes_is_found_at_once(ours: Connection, valkey: ValkeyServer) -> None:
    got: list[float] = []
    with ExitStack() as stack:
        publisher = stack.enter_context(connect(transport.broker_url(valkey.url)))
        publish(publisher, {"n": 0})
        assert consume(ours, 1) == [{"n": 0}]
        stack.enter_context(
            Consumer(ours, QUEUE, callbacks=[lambda body, message: (message.ack(), got.append(time.monotonic()))])
        )
        waits = []
        for _ in range(5):
            drain(ours, 0.05)
            got.clear()
            published = time.monotonic()
            publish(publisher, {"n": 1})
            while not got and time.monotonic() < published + 5:
                drain(ours, 0.5)
            waits.append(got[0] - published)
    assert sorted(waits)[2] < 0.3, "the bell rang"


@pytest.mark.parametrize("no_ack", [True, False])
def test_who_waits_for_a_message_is_told_as_soon_as_it_is_there(
    ours: Connection, valkey: ValkeyServer, no_ack: bool
) -> None:
    def take(body: Any, message: Any) -> None:
        if not no_ack:
            message.ack()

    with Consumer(ours, QUEUE, callbacks=[take], no_ack=no_ack):
        publish(ours, {"n": 1})
        begin = time.monotonic()
        ours.drain_events(timeout=20)
        drain(ours, 0.05)
        with connect(transport.broker_url(valkey.url)) as publisher:  # now it waits on its bells
            publish(publisher, {"n": 2})
            ours.drain_events(timeout=20)
        assert time.monotonic() - begin < 10
    with valkey.client() as client:
        assert not client.exists(f"{PREFIX}unacked_index")


def test_a_simple_queue_gets_and_times_out_as_kombus_own(ours: Connection) -> None:
    queue = ours.SimpleQueue(QUEUE)
    queue.put({"n": 1})
    got = queue.get(timeout=10)
    assert got.payload == {"n": 1}
    got.ack()
    with pytest.raises(Empty):
        queue.get(timeout=0.1)
    queue.close()


def test_kombus_own_transport_takes_what_ours_publishes(ours: Connection, theirs: Connection) -> None:
    publish(ours, *({"n": n} for n in range(5)))
    assert consume(theirs, 5) == [{"n": n} for n in range(5)]


def test_ours_takes_what_kombus_own_publishes_in_order(ours: Connection, theirs: Connection) -> None:
    publish(theirs, *({"n": n} for n in range(5)))
    assert consume(ours, 5) == [{"n": n} for n in range(5)]


def test_a_message_handed_back_by_either_is_taken_by_the_other_and_marked(ours: Connection, theirs: Connection) -> None:
    publish(ours, {"n": 0}, {"n": 1})
    first = ours.channel().basic_get(QUEUE.name)
    first.channel.basic_reject(first.delivery_tag, requeue=True)
    again = theirs.channel().basic_get(QUEUE.name)
    assert loads(again.body) == {"n": 0}, "ours puts it where it is the next to be taken"
    assert again.delivery_info["redelivered"] is True
    again.channel.basic_reject(again.delivery_tag, requeue=True)
    back = [ours.channel().basic_get(QUEUE.name) for _ in range(2)]
    assert [loads(message.body)["n"] for message in back] == [1, 0], "kombu puts it at the end of the queue"
    for message in back:
        message.ack()


def test_a_message_taken_is_noted_as_kombu_notes_it(ours: Connection, theirs: Connection, valkey: ValkeyServer) -> None:
    noted = []
    for connection in (ours, theirs):
        publish(connection, {"n": 1})
        message = connection.channel().basic_get(QUEUE.name)
        with valkey.client() as client:
            (tag,) = client.zrange(f"{PREFIX}unacked_index", 0, -1)
            (kept,) = client.hvals(f"{PREFIX}unacked")
            assert tag.decode() == message.delivery_tag
        body, exchange, routing_key = loads(kept.decode())
        assert body["properties"]["delivery_tag"] == message.delivery_tag
        noted.append((sorted(body), exchange, routing_key))
        message.ack()
        with valkey.client() as client:
            assert not client.exists(f"{PREFIX}unacked_index", f"{PREFIX}unacked", f"{PREFIX}in-flight")
    (ours_keys, _, ours_queue), (their_keys, _, their_queue) = noted
    assert ours_keys == their_keys
    assert ours_queue == their_queue == QUEUE.name


def test_what_a_dead_process_of_either_kind_held_is_restored_by_ours(ours: Connection, valkey: ValkeyServer) -> None:
    for url in (valkey.url, transport.broker_url(valkey.url)):
        with connect(valkey.url) as connection:
            publish(connection, {"from": url.split(":")[0]})
        dead = connect(url)
        held = dead.channel().basic_get(QUEUE.name)
        held.channel.qos._delivered.clear()  # it hands nothing back at its end
        if url.startswith("penstock"):
            transport._leases.popitem()[1].close()  # its heart stops
        with valkey.client() as client:
            client.zadd(f"{PREFIX}unacked_index", {held.delivery_tag: time.time() - 60})
        ours.channel().qos.restore_visible()
        assert consume(ours, 1) == [{"from": url.split(":")[0]}]
        dead.close()


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"delivery_tag": "not-this-one"}},
        {"headers": {"note": '{"delivery_tag": "nor-this"}'}},
        {"correlation_id": '", "delivery_tag": "nor-that'},
        {"headers": {"delivery_tag": "x", "long": "y" * 20_000}},
    ],
)
def test_the_delivery_tag_is_read_right_whatever_else_a_message_says(
    ours: Connection, valkey: ValkeyServer, more: dict[str, Any]
) -> None:
    publish(ours, {"delivery_tag": "in-the-body"}, **more)
    message = ours.channel().basic_get(QUEUE.name)
    with valkey.client() as client:
        assert [tag.decode() for tag in client.zrange(f"{PREFIX}unacked_index", 0, -1)] == [message.delivery_tag]
    message.ack()


@pytest.mark.parametrize("size", [0, 100_000, 3_000_000])
def test_messages_of_all_sizes_pass_unchanged(ours: Connection, size: int) -> None:
    body = {"text": "ü" * (size // 2)}
    publish(ours, body, compression="zlib" if size else None)
    assert consume(ours, 1) == [body]


def test_all_keys_have_the_prefix(ours: Connection, valkey: ValkeyServer) -> None:
    publish(ours, {"n": 1}, {"n": 2})
    held = ours.channel().basic_get(QUEUE.name)
    with valkey.client() as client:
        keys = [key.decode() for key in client.keys("*")]
        assert client.llen(f"{PREFIX}{QUEUE.name}") == 1
    assert keys
    assert all(key.startswith(PREFIX) for key in keys)
    held.ack()


def test_a_queue_with_messages_is_known_by_its_name_under_the_prefix(ours: Connection) -> None:
    channel = ours.channel()
    with pytest.raises(ours.channel_errors):
        channel.queue_declare(QUEUE.name, passive=True)
    publish(ours, {"n": 1}, {"n": 2})
    assert channel.queue_declare(QUEUE.name, passive=True).message_count == 2


def test_two_prefixes_on_one_server_do_not_meet(ours: Connection, valkey: ValkeyServer) -> None:
    with connect(transport.broker_url(valkey.url), global_keyprefix="other:") as other:
        publish(other, {"n": 1})
        assert ours.channel().basic_get(QUEUE.name) is None
        assert consume(other, 1) == [{"n": 1}]


def test_a_batch_is_published_in_few_round_trips_and_rings(ours: Connection, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        producer = Producer(ours)
        producer.publish({"n": -1}, exchange=QUEUE.exchange, routing_key=QUEUE.routing_key, declare=[QUEUE])
        assert producer.supports_batch_publish
        with producer.batch(50):
            for n in range(100):
                producer.publish({"n": n}, exchange=QUEUE.exchange, routing_key=QUEUE.routing_key)
        assert client.llen(f"{PREFIX}{QUEUE.name}") == 101
        assert client.llen(f"{PREFIX}bell:{QUEUE.name}") == transport.BELLS
    assert consume(ours, 101) == [{"n": n} for n in range(-1, 100)]


def test_nobodys_bells_do_not_pile_up(ours: Connection, valkey: ValkeyServer) -> None:
    publish(ours, *({"n": n} for n in range(40)))
    with valkey.client() as client:
        assert client.llen(f"{PREFIX}bell:{QUEUE.name}") <= transport.BELLS


def test_messages_of_all_priorities_are_on_the_one_list_that_is_read(ours: Connection) -> None:
    for priority in (0, 3, 9):
        publish(ours, {"priority": priority}, priority=priority)
    assert [body["priority"] for body in consume(ours, 3)] == [0, 3, 9]


def test_fanout_reaches_consumers_of_both_kinds(ours: Connection, theirs: Connection) -> None:
    got: list[str] = []
    exchange = Exchange("contract.fanout", type="fanout", durable=False)
    with ExitStack() as stack:
        for name, connection in (("ours", ours), ("theirs", theirs)):
            queue = Queue(f"contract.{name}", exchange, auto_delete=True, durable=False)
            stack.enter_context(
                Consumer(connection, queue, callbacks=[lambda body, message, name=name: got.append(name)], no_ack=True)
            )
            drain(connection, 0.2)
        Producer(ours).publish({"hello": "all"}, exchange=exchange, routing_key="")
        end = time.monotonic() + 10
        while len(got) < 2 and time.monotonic() < end:
            drain(ours, 0.1)
            drain(theirs, 0.1)
    assert sorted(got) == ["ours", "theirs"]


def test_prefetch_bounds_what_is_taken(ours: Connection, valkey: ValkeyServer) -> None:
    publish(ours, *({"n": n} for n in range(10)))
    held: list[Any] = []
    with Consumer(ours, QUEUE, callbacks=[lambda body, message: held.append(message)]) as consumer:
        consumer.qos(prefetch_count=3)
        for _ in range(5):
            drain(ours, 0.05)
        with valkey.client() as client:
            assert (len(held), client.llen(f"{PREFIX}{QUEUE.name}")) == (3, 7)
        for message in held:
            message.ack()
        for _ in range(5):
            drain(ours, 0.05)
        assert len(held) == 6


def test_what_a_closed_channel_had_not_done_goes_back_as_the_next_to_be_taken(
    ours: Connection, valkey: ValkeyServer
) -> None:
    publish(ours, *({"n": n} for n in range(3)))
    with connect(transport.broker_url(valkey.url)) as other:
        consumer = Consumer(other, QUEUE, callbacks=[lambda body, message: None])
        consumer.qos(prefetch_count=2)
        consumer.consume()
        drain(other, 0.2)
    assert sorted(body["n"] for body in consume(ours, 3)) == [0, 1, 2]


def test_a_message_is_what_kombu_says_it_is(ours: Connection, valkey: ValkeyServer) -> None:
    publish(ours, {"n": 1})
    with valkey.client() as client:
        (raw,) = client.lrange(f"{PREFIX}{QUEUE.name}", 0, -1)
    message = loads(raw.decode())
    assert sorted(message) == ["body", "content-encoding", "content-type", "headers", "properties"]
    assert list(message)[-1] == "properties", "take.lua reads the tag from the message's end"
    assert loads(base64.b64decode(message["body"]).decode()) == {"n": 1}
    assert dumps(message)
