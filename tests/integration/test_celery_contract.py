"""What our worker leans on in Celery and kombu 5.7, and that plain Celery apps and our workers understand each other.

When Celery or kombu is updated and a test of the first part fails, ``workers/broker`` (``feeder``, ``consumer``,
``message``) must be read again beside theirs before the pins in ``pyproject.toml`` are moved.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import celery
import kombu
import pytest
from celery import Celery
from celery.app.amqp import AMQP
from celery.worker.consumer import Consumer
from celery.worker.control import active_queues
from celery.worker.request import Request
from kombu.message import Message
from kombu.transport import redis as stock

from penstock.config.celery import CONSUMER
from penstock.workers.broker.consumer import LaneConsumer
from penstock.workers.broker.message import LeaseChannel
from penstock.workers.results.mapping import result_from
from support.plant import PREFIX
from support.task_bench import SHORT_LEASES, Stage, TaskBench, open_bench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

# What we override and call -----------------------------------------------------------------------------------------

SIGNATURES: list[tuple[Callable[..., Any], list[str]]] = [
    # Overridden: a changed signature would mean a changed purpose.
    (AMQP.TaskConsumer, ["self", "channel", "queues", "accept", "kw"]),
    (Consumer.add_task_queue, ["self", "queue", "exchange", "exchange_type", "routing_key", "options"]),
    (Consumer.cancel_task_queue, ["self", "queue"]),
    (Consumer.call_soon_ack, ["self", "p", "args", "kwargs"]),
    (Consumer.on_close, ["self"]),
    (Consumer.on_unknown_message, ["self", "body", "message"]),
    (Consumer.on_unknown_task, ["self", "body", "message", "exc"]),
    (Consumer.on_invalid_task, ["self", "body", "message", "exc"]),
    (Consumer.on_decode_error, ["self", "message", "exc"]),
    (active_queues, ["state"]),
    (Request.on_accepted, ["self", "pid", "time_accepted"]),
    # Called.
    (Consumer.create_task_handler, ["self", "promise"]),
    (Consumer.call_soon, ["self", "p", "args", "kwargs"]),
    (stock.Channel.basic_ack, ["self", "delivery_tag", "multiple"]),
    (stock.Channel.basic_reject, ["self", "delivery_tag", "requeue"]),
]


def test_these_are_the_versions_that_the_feeder_was_written_for() -> None:
    assert kombu.__version__.startswith("5.7.")
    assert celery.__version__.startswith("5.7.")


@pytest.mark.parametrize(("method", "parameters"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", ""))
def test_a_method_has_the_parameters_that_we_count_on(method: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters


def test_our_consumer_is_celerys_and_is_the_one_that_is_configured() -> None:
    assert issubclass(LaneConsumer, Consumer)
    assert f"{LaneConsumer.__module__}:{LaneConsumer.__name__}" == CONSUMER


class _Leases:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def ack(self, tag: str) -> None:
        self.calls.append(f"ack {tag}")

    def put_back(self, tag: str) -> None:
        self.calls.append(f"put back {tag}")


@pytest.mark.parametrize(
    ("end", "call"),
    [
        (lambda message: message.ack(), "ack t"),
        (lambda message: message.reject(), "ack t"),
        (lambda message: message.requeue(), "put back t"),
        (lambda message: message.ack_log_error(None, ()), "ack t"),
        (lambda message: message.reject_log_error(None, (), requeue=True), "put back t"),
    ],
)
def test_a_message_ends_through_its_channel_and_once(end: Callable[[Any], None], call: str) -> None:
    leases = _Leases()
    message = Message(b"{}", "t", delivery_info={}, channel=LeaseChannel(leases))  # type: ignore[arg-type]
    end(message)
    assert leases.calls == [call]
    with pytest.raises(message.MessageStateError):
        message.ack()
    assert leases.calls == [call]


def test_kombu_keeps_what_went_wrong_with_a_body() -> None:
    message = Message("cut", "t", headers={"compression": "zlib"}, channel=None)
    assert message.errors, "read_message looks at it"


# Plain Celery apps and our workers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, SHORT_LEASES, dimensions=8) as found:
        found.start_worker("-c", "10")
        yield found


@pytest.fixture
def bench(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskBench]:
    with open_bench(stage, monkeypatch) as found:
        found.openai("text_embedding", "docs", stage.stand_in.url, model="m")
        yield found


@pytest.fixture
def plain(stage: Stage) -> Iterator[Callable[..., Celery]]:
    """Make a Celery app of somebody else's, that knows nothing of ours."""
    made: list[Celery] = []

    def make(**options: Any) -> Celery:
        made.append(Celery("plain", broker=stage.valkey.url, set_as_current=False))
        made[-1].conf.update(options)
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.mark.parametrize(
    ("options", "queue"),
    [
        ({"broker_transport_options": {"global_keyprefix": PREFIX}}, "penstock.docs.interactive"),
        ({}, f"{PREFIX}penstock.docs.interactive"),
        ({}, f"{PREFIX}penstock.docs.bulk"),
    ],
)
def test_what_a_plain_app_publishes_is_taken_and_answered(
    bench: TaskBench, plain: Callable[..., Celery], options: dict[str, Any], queue: str
) -> None:
    sent = plain(**options).send_task("penstock.embed", (["a text"], "docs"), queue=queue)
    answer = bench.app.AsyncResult(sent.id).get(timeout=15)
    assert result_from(answer).vectors.shape == (1, 8)


def test_many_that_a_plain_app_publishes_are_taken_in_their_order(
    bench: TaskBench, plain: Callable[..., Celery], stage: Stage
) -> None:
    app = plain(broker_transport_options={"global_keyprefix": PREFIX})
    sent = [app.send_task("penstock.embed", ([f"text {n}"], "docs"), queue="penstock.docs.bulk") for n in range(20)]
    for each in sent:
        assert result_from(bench.app.AsyncResult(each.id).get(timeout=15)).vectors.shape == (1, 8)
    with stage.valkey.client() as client:
        held = [PREFIX + name for name in ("unacked", "unacked_index", "in-flight")]
        wait_until(lambda: not client.exists(*held), "no lease is left")


def test_others_messages_in_flight_on_the_same_server_are_left_alone(stage: Stage, bench: TaskBench) -> None:
    with stage.valkey.client() as client:
        client.zadd("unacked_index", {"theirs": time.time() - 3600})
        client.hset("unacked", "theirs", '[{"body": ""}, "celery", "celery"]')
        assert bench.send("embed", ["a text"], "docs").get(timeout=15)
        time.sleep(2.5)  # longer than our leases
        assert client.zscore("unacked_index", "theirs")
        assert client.hget("unacked", "theirs")
        assert not client.exists("celery", f"{PREFIX}celery")
        client.delete("unacked", "unacked_index")


@pytest.mark.parametrize("prefix", ["", "other:"])
def test_another_app_on_the_same_server_restores_nothing_of_ours(stage: Stage, prefix: str) -> None:
    options = {"global_keyprefix": prefix, "visibility_timeout": 1}
    with stage.valkey.client() as client, kombu.Connection(stage.valkey.url, transport_options=options) as theirs:
        now = time.time() + 3600  # our own workers leave it alone
        client.zadd(f"{PREFIX}unacked_index", {"ours": now})
        client.hset(f"{PREFIX}unacked", "ours", '[{"body": ""}, "", "penstock"]')
        channel = theirs.channel()
        channel.qos.restore_visible(interval=1)
        assert client.zscore(f"{PREFIX}unacked_index", "ours") == pytest.approx(now)
        client.delete(f"{PREFIX}unacked", f"{PREFIX}unacked_index")
