"""Messages of all kinds through real workers: each ends its lease, goes back or is set apart, and nothing is lost."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import zstandard
from celery.exceptions import NotRegistered, TaskRevokedError

from penstock.config.errors import MessageUnreadable
from penstock.config.names import dead_messages_key
from penstock.config.redis import text
from penstock.workers.broker.bells import RINGS
from support.plant import PREFIX, QUEUE, Plant, envelope
from support.proxy import Proxy
from support.valkey import ValkeyServer
from support.waiting import wait_until
from support.worker import Worker

APP = "support.feeder_app"
LEASES = {"PENSTOCK_VISIBILITY_TIMEOUT_S": "2", "PENSTOCK_HEARTBEAT_S": "0.5"}
StartWorkers = Callable[..., list[Worker]]


@pytest.fixture
def start(worker: StartWorkers, plant: Plant) -> StartWorkers:
    """Start workers whose leases are short: ``start(2, args=("-c", "4"))``."""

    def new(n: int = 1, **options: Any) -> list[Worker]:
        return worker(n, **{"app": APP, **LEASES, **options})

    return new


def cut(**changes: Any) -> dict[str, Any]:
    """A message with parts replaced; those that are ``...`` are taken out."""
    made = {**envelope(), **changes}
    return {name: value for name, value in made.items() if value is not ...}


PACKED = zstandard.compress(json.dumps(([1, 2], {}, {})).encode())

#: Without an id that could be read.
NAMELESS: dict[str, Any] = {
    "list": [],
    "object": {},
    "null": None,
    "number": 7,
    "string": "a text",
    "not JSON": b"{cut",
    "not UTF-8": b"\xff\xfe\x00",
    "empty": b"",
    "deep": b"[" * 100_000,
    "bad number": b'{"properties": {"__type__": "decimal", "__value__": "x"}}',
    "id a number": {**envelope(id=5), "properties": {}},
    "headers a list": cut(headers=[], properties=[]),
}
#: With an id: whoever waits for the task is told.
NAMED: dict[str, Any] = {
    "bad base64": cut(body="!!!"),
    "cut zstd": envelope(body=PACKED[:-4], compression="application/zstd"),
    "unknown compression": envelope(compression="application/none"),
    "wrong content type": cut(**{"content-type": "application/x-python-serialize"}),
    "body no JSON": envelope(body=b"{cut"),
    "body a number": envelope(body=7),
    "arguments a number": envelope(body=[1, {}, {}]),
    "keywords a list": envelope(body=[[1, 2], [], {}]),
    "rest a number": envelope(body=[[1, 2], {}, 5]),
    "body too short": envelope(body=[1]),
    "no body": cut(body=...),
    "body a list": cut(body=[]),
    "no properties": cut(properties=...),
    "properties a string": cut(properties="p"),
    "delivery_info a list": cut(properties={"delivery_info": [1]}),
    "task a list": envelope(task=["tests.add"]),
    "task a number": envelope(task=5),
    "no task": cut(headers={"id": "an-id"}, body=base64.b64encode(b'{"x": 1}').decode()),
    "eta a number": envelope(eta=5),
    "eta no date": envelope(eta="tomorrow"),
    "expires no date": envelope(expires="never"),
    "timelimit a number": envelope(timelimit=5),
}


def test_what_cannot_be_read_is_set_apart_untouched_and_its_sender_told(plant: Plant, start: StartWorkers) -> None:
    (worker,) = start(args=("-c", "4"))
    nameless = {plant.push(message) for message in NAMELESS.values()}
    named = {plant.push(message): message["headers"]["id"] for message in NAMED.values()}
    plant.wait(plant.at_rest, "no lease is left", 20)
    assert {each.raw for each in plant.dead()} == {*nameless, *named}
    assert {each.raw: each.task_id for each in plant.dead()} == {**dict.fromkeys(nameless), **named}
    assert all(each.why and abs(time.time() - each.at) < 60 for each in plant.dead())
    plant.wait(plant.at_rest, "no lease is left")
    errors = {kind: plant.outcome(message["headers"]["id"]) for kind, message in NAMED.items()}
    assert {kind: type(error) for kind, error in errors.items()} == dict.fromkeys(NAMED, MessageUnreadable)
    assert all("penstock lane dead penstock" in str(error) for error in errors.values())
    assert plant.client.ttl(dead_messages_key(PREFIX)) > 86_400
    assert plant.send("tests.add", 1, 2).get(timeout=10) == 3, "the worker goes on"
    assert "Traceback" not in worker.log, worker.log


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {"body_encoding": "base64"}},  # no tag, no correlation id
        {"properties": {"body_encoding": "base64", "delivery_tag": 5, "priority": "x", "reply_to": 7}},
        {"properties": {"body_encoding": "base64", "delivery_info": None}},
    ],
)
def test_what_celery_does_not_need_may_be_missing_or_wrong(
    plant: Plant, start: StartWorkers, change: dict[str, Any]
) -> None:
    start()
    message = cut(**change)
    plant.push(message)
    assert plant.app.AsyncResult(message["headers"]["id"]).get(timeout=10) == 3
    plant.wait(plant.at_rest, "no lease is left")


@pytest.mark.parametrize("body", [[[1, 2], {}, None], [[], {}, {}], [[1], {"z": 1}, {}]])
def test_arguments_that_do_not_fit_are_the_tasks_own_failure(plant: Plant, start: StartWorkers, body: Any) -> None:
    start()
    message = envelope(body=body)
    plant.push(message)
    plant.wait(lambda: plant.waiting() == 0, "it is taken")
    plant.wait(plant.at_rest, "no lease is left")
    assert isinstance(plant.outcome(message["headers"]["id"]), Exception | int)


def test_contents_are_in_no_log(plant: Plant, start: StartWorkers) -> None:
    (worker,) = start()
    secret = "a text that nobody may see"
    plant.push(envelope(body=json.dumps(secret).encode()[:-1]))
    plant.push({"secret": secret})
    plant.push(envelope(task="tests.unknown", body=([secret], {}, {})))
    plant.wait(lambda: len(plant.dead()) == 2, "they are set apart")
    plant.wait(plant.at_rest, "no lease is left")
    assert secret not in worker.log
    assert secret not in repr(plant.dead())


def test_dead_messages_are_bounded(plant: Plant, start: StartWorkers) -> None:
    start(args=("-c", "50"))
    plant.client.lpush(f"{PREFIX}{QUEUE}", *[json.dumps([n]).encode() for n in range(1100)])
    plant.push([1100])
    plant.wait(plant.at_rest, "all are taken", 40)
    assert len(plant.dead()) == 1000


def test_the_sender_of_an_unknown_task_is_told_as_celery_does(plant: Plant, start: StartWorkers) -> None:
    start()
    sent = plant.send("tests.no_such_task", 1)
    with pytest.raises(NotRegistered, match=r"tests\.no_such_task"):
        sent.get(timeout=10)
    plant.wait(plant.at_rest, "no lease is left")
    assert plant.dead() == []


def test_a_long_message_without_a_tag_does_not_hold_redis_up(plant: Plant, start: StartWorkers) -> None:
    start()
    plant.client.config_set("slowlog-log-slower-than", 50_000)
    plant.client.slowlog_reset()
    message = cut(properties={"body_encoding": "base64"}, body=base64.b64encode(b'"' * 150_000).decode())
    assert len(plant.push(message)) > 200_000
    plant.push(b'"\\' * 100_000)
    plant.wait(lambda: len(plant.dead()) == 2, "they are set apart")
    assert plant.client.slowlog_get() == []


def test_a_revoked_task_ends_its_lease(plant: Plant, start: StartWorkers) -> None:
    (worker,) = start()
    plant.app.control.broadcast("revoke", {"task_id": "revoked-one"}, reply=True, timeout=10, limit=1)
    sent = plant.send("tests.nap", task_id="revoked-one")
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=10)
    plant.wait(plant.at_rest, "no lease is left")
    running = plant.send("tests.nap", 60)
    plant.wait(lambda: running.id in plant.counts("begun"), "it runs")
    plant.app.control.revoke(running.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=10)
    plant.wait(plant.at_rest, "no lease is left")
    assert "Traceback" not in worker.log


# Time --------------------------------------------------------------------------------------------------------------


def test_a_message_waits_for_its_time_in_the_broker_whatever_happens_to_workers(
    plant: Plant, start: StartWorkers
) -> None:
    (first,) = start()
    soon = plant.send("tests.nap", countdown=4)
    long_ago = plant.send("tests.nap", eta=datetime.now(UTC) - timedelta(hours=1))
    far = plant.send("tests.nap", countdown=3600)
    assert long_ago.get(timeout=10) is None
    plant.wait(lambda: plant.client.zcard(f"{PREFIX}due") >= 1 and not plant.waiting(), "they wait in the broker")
    plant.wait(lambda: not plant.in_flight(), "and in no worker")
    first.kill()
    start()
    assert soon.get(timeout=15) is None
    assert plant.counts("begun") == {long_ago.id: 1, soon.id: 1}
    assert plant.client.zcard(f"{PREFIX}due") == 1
    assert far.id not in plant.counts("begun")


def test_a_message_is_not_run_before_its_time(plant: Plant, start: StartWorkers) -> None:
    start()
    begun = time.time()
    sent = plant.send("tests.nap", countdown=2)
    assert sent.get(timeout=15) is None
    assert time.time() - begun >= 2
    plant.wait(plant.at_rest, "no lease is left")


def test_a_due_message_whose_queue_is_no_list_holds_up_no_other(plant: Plant, start: StartWorkers) -> None:
    start()
    stuck = plant.send("tests.nap", countdown=1, queue="penstock.chunk")
    plant.wait(lambda: plant.client.zcard(f"{PREFIX}due") == 1, "it waits")
    plant.client.set(f"{PREFIX}penstock.chunk", "not a list")
    time.sleep(1.2)
    assert plant.send("tests.nap", countdown=0.5).get(timeout=10) is None
    plant.client.delete(f"{PREFIX}penstock.chunk")
    assert stuck.get(timeout=10) is None


def test_a_queue_whose_key_is_no_list_harms_only_itself(plant: Plant, start: StartWorkers) -> None:
    plant.client.set(f"{PREFIX}penstock.chunk", "not a list")
    start()
    assert plant.send("tests.add", 1, 2).get(timeout=10) == 3
    plant.client.delete(f"{PREFIX}penstock.chunk")
    assert plant.send("tests.add", 1, 2, queue="penstock.chunk").get(timeout=10) == 3


def test_a_message_whose_sender_rings_no_bell_is_seen(plant: Plant, start: StartWorkers) -> None:
    start()
    message = envelope()
    time.sleep(0.3)  # the worker waits on its bell
    plant.client.lpush(f"{PREFIX}{QUEUE}", json.dumps(message))
    wait_until(lambda: plant.waiting() == 0, "it is taken", 5)
    assert plant.app.AsyncResult(message["headers"]["id"]).get(timeout=5) == 3


# Trouble -----------------------------------------------------------------------------------------------------------


def test_work_goes_on_and_runs_once_when_the_connection_is_cut(
    plant: Plant, start: StartWorkers, valkey: ValkeyServer
) -> None:
    proxy = Proxy(valkey.port)
    try:
        (worker,) = start(args=("-c", "10"), PENSTOCK_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
        sent = [plant.send("tests.nap", 1.5, n) for n in range(30)]
        plant.wait(lambda: len(plant.counts("begun")) >= 10, "ten run")
        proxy.refusing = True
        proxy.cut()
        time.sleep(1.0)
        proxy.refusing = False
        assert [each.get(timeout=30) for each in sent] == list(range(30))
        proxy.cut()
        assert plant.send("tests.add", 1, 2).get(timeout=20) == 3
        plant.wait(plant.at_rest, "no lease is left", 20)
        assert set(plant.counts("begun").values()) == {1}
        assert "unhandled" not in worker.log.lower()
    finally:
        proxy.stop()


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(
    home: Path, mortal: ValkeyServer, worker: StartWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", mortal.url)
    with mortal.client() as client:
        plant = Plant(client)
        worker(1, app=APP, args=("-c", "10"), **LEASES)
        sent = [plant.send("tests.nap", 2.0, n) for n in range(20)]
        plant.wait(lambda: len(plant.counts("begun")) >= 10, "ten run")
        mortal.kill()
        time.sleep(0.5)
        mortal.start()
        wait_until(lambda: answers(client), "the broker is back")
        plant.wait(lambda: len(plant.counts("done")) == 20, "all are done", 60)
        plant.wait(plant.at_rest, "no lease is left", 20)
        assert set(plant.counts("done").values()) == {1}
        assert [plant.app.backend.get_result(each.id) for each in sent] == list(range(20))
        plant.close()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_warm_shutdown_finishes_what_runs_and_leaves_the_rest_to_others(plant: Plant, start: StartWorkers) -> None:
    (first,) = start(args=("-c", "4"))
    sent = [plant.send("tests.nap", 1.5, n) for n in range(12)]
    plant.wait(lambda: len(plant.counts("begun")) == 4, "four run")
    first.send(signal.SIGTERM)
    assert first.wait(20) == 0
    assert len(plant.counts("done")) == 4
    assert plant.in_flight() == []
    assert plant.waiting() == 8
    start(args=("-c", "8"))
    assert [each.get(timeout=20) for each in sent] == list(range(12))
    assert set(plant.counts("begun").values()) == {1}
    plant.wait(plant.at_rest, "no lease is left")


def test_a_cold_shutdown_hands_everything_back_at_once(plant: Plant, start: StartWorkers) -> None:
    (first,) = start(args=("-c", "4"), PENSTOCK_VISIBILITY_TIMEOUT_S="60")
    for n in range(12):
        plant.send("tests.nap", 3600, n)
    plant.wait(lambda: len(plant.counts("begun")) == 4, "four run")
    first.send(signal.SIGQUIT)
    plant.wait(lambda: plant.waiting() == 12 and not plant.in_flight(), "all are back on their queue")
    first.wait(20)
    assert plant.waiting() == 12
    assert plant.counts("done") == {}


def test_what_a_killed_worker_had_runs_elsewhere(plant: Plant, start: StartWorkers) -> None:
    first, second = start(2, args=("-c", "4"))
    sent = [plant.send("tests.nap", 1.0, n) for n in range(16)]
    plant.wait(lambda: len(plant.counts("begun")) >= 8, "both work")
    first.kill()
    assert [each.get(timeout=30) for each in sent] == list(range(16))
    plant.wait(plant.at_rest, "no lease is left")
    assert second.running
    assert max(plant.counts("begun").values()) <= 2


def test_a_worker_that_was_stopped_for_longer_than_its_leases_does_nothing_twice_after(
    plant: Plant, start: StartWorkers
) -> None:
    (first,) = start(args=("-c", "2"))
    sent = plant.send("tests.nap", 1.0, 5)
    plant.wait(lambda: plant.counts("begun"), "it runs")
    os.kill(first.pid, signal.SIGSTOP)
    start(args=("-c", "2"))
    assert sent.get(timeout=20) == 5
    os.kill(first.pid, signal.SIGCONT)
    assert plant.send("tests.add", 1, 2).get(timeout=10) == 3
    plant.wait(plant.at_rest, "no lease is left")


# Which queues ------------------------------------------------------------------------------------------------------


def served(plant: Plant, worker: Worker) -> set[str]:
    answer = plant.app.control.inspect([worker.name], timeout=10, limit=1).active_queues()
    return {queue["name"] for queue in answer[worker.name]}


def test_queues_are_told_added_and_cancelled_as_in_any_worker(plant: Plant, start: StartWorkers) -> None:
    told, without = start(1, args=("-Q", "mine"))[0], start(1, args=("-X", "mine,penstock.chunk"))[0]
    assert served(plant, told) == {"mine"}
    assert {"penstock"} <= served(plant, without)
    assert not {"mine", "penstock.chunk"} & served(plant, without)
    plant.push(envelope(task="tests.nap", body=([], {}, {})), "mine")
    plant.push(envelope(task="tests.nap", body=([], {}, {})), "penstock.chunk")
    plant.wait(lambda: plant.waiting("mine") == 0, "who was told takes it")
    time.sleep(1.5)
    assert plant.waiting("penstock.chunk") == 1, "nobody serves it"
    control, both = plant.app.control, {"reply": True, "timeout": 10, "limit": 1}
    control.add_consumer("penstock.chunk", destination=[told.name], **both)
    plant.wait(lambda: plant.waiting("penstock.chunk") == 0, "added, it is taken from")
    plant.wait(lambda: served(plant, told) == {"mine", "penstock.chunk"}, "it says so")
    control.cancel_consumer("mine", destination=[told.name], **both)
    plant.wait(lambda: served(plant, told) == {"penstock.chunk"}, "it says so")
    plant.push(envelope(task="tests.nap", body=([], {}, {})), "mine")
    time.sleep(1.5)
    assert plant.waiting("mine") == 1
    plant.client.delete(f"{PREFIX}mine")
    plant.wait(lambda: len(plant.counts("done")) == 2, "two have run")


# Kombu's form of a message -----------------------------------------------------------------------------------------


def test_a_message_is_what_kombu_says_it_is(plant: Plant) -> None:
    plant.send("tests.add", 1, 2)
    (raw,) = plant.client.lrange(f"{PREFIX}{QUEUE}", 0, -1)
    message = json.loads(raw)
    assert sorted(message) == ["body", "content-encoding", "content-type", "headers", "properties"]
    assert message["properties"]["body_encoding"] == "base64"
    assert base64.b64decode(message["body"], validate=True)
    assert {"id", "task"} <= set(message["headers"])


def test_messages_of_all_priorities_are_on_the_one_list_that_is_read(plant: Plant) -> None:
    for priority in (0, 3, 9):
        plant.send("tests.add", 1, 2, priority=priority)
    assert plant.waiting() == 3
    assert all(text(key).startswith(PREFIX) for key in plant.client.keys("*"))


def test_bells_that_nobody_hears_do_not_pile_up(plant: Plant) -> None:
    for _ in range(20):
        plant.send("tests.add", 1, 2)
    assert plant.client.llen(f"{PREFIX}bell") == plant.client.llen(f"{PREFIX}bell:{QUEUE}") == RINGS
