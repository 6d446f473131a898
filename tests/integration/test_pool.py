"""The asyncio pool keeps Celery's semantics. One worker serves all tests of this file."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import Reject, SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from pytest_celery import CeleryTestBackend, CeleryTestBroker, CeleryTestSetup, CeleryWorkerCluster

from penstock.config.errors import InferenceFailed
from support import nodes
from support.harness import harness
from support.valkey import ValkeyServer
from support.waiting import wait_until
from support.worker import Worker

CONCURRENCY = 20


# pytest-celery's nodes, for the module in place of the test ---------------------------------------------------------


@pytest.fixture(scope="module")
def celery_broker(valkey_server: ValkeyServer) -> CeleryTestBroker:
    valkey_server.flush()
    return nodes.broker_node(valkey_server)


@pytest.fixture(scope="module")
def celery_backend(valkey_server: ValkeyServer) -> CeleryTestBackend:
    return nodes.backend_node(valkey_server)


@pytest.fixture(scope="module")
def celery_worker_cluster(
    celery_broker: CeleryTestBroker, pool_app: ModuleType, valkey_server: ValkeyServer
) -> Iterator[CeleryWorkerCluster]:
    with harness(env={"POOL_BROKER_URL": valkey_server.url}) as made:
        start = nodes.local_workers(made)
        cluster = CeleryWorkerCluster(*start("support.pool_app", 1, ("-c", str(CONCURRENCY), "-E"), {}, pool_app.app))
        cluster.ready()
        yield cluster


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    return CeleryTestSetup


@pytest.fixture
def celery_setup_app(pool_app: ModuleType) -> Any:
    return pool_app.app


@pytest.fixture
def worker(celery_setup: CeleryTestSetup) -> Worker:
    assert celery_setup.app.conf.broker_url == celery_setup.broker.config()["url"]
    process: Worker = celery_setup.worker.container.process
    return process


@pytest.fixture
def tasks(pool_app: ModuleType, worker: Worker) -> ModuleType:
    for key in ("now", "most", "interrupted", "finished", "order"):
        pool_app.memory.delete(f"tests:{key}")
    return pool_app


@pytest.fixture
def inspect(tasks: ModuleType, worker: Worker) -> Any:
    """Ask the worker: ``inspect("active")``."""
    return lambda what: getattr(tasks.app.control.inspect([worker.name], timeout=20), what)()[worker.name]


def unacknowledged(tasks: ModuleType) -> int:
    return int(tasks.memory.zcard("unacked_index"))


def test_signals_surround_the_body_and_coroutines_know_their_request(tasks: ModuleType) -> None:
    result = tasks.events.delay()
    assert result.get(timeout=10) == result.id
    wait_until(lambda: tasks.memory.llen("tests:order") == 4, "the last signal")
    assert tasks.memory.lrange("tests:order", 0, -1) == ["prerun True", "body", "after True", "postrun SUCCESS"]


def test_coroutines_and_bridges_run_on_the_loop_and_blocking_bodies_in_threads(tasks: ModuleType) -> None:
    assert tasks.bridge.delay(0.01).get(timeout=10) == [True, "penstock-loop", "penstock-loop"]
    inside, waited, body = tasks.thread.delay(0.01).get(timeout=10)
    assert (inside, waited) == (True, "penstock-loop")
    assert body.startswith("penstock-task-")


def test_as_many_as_the_concurrency_are_in_flight_and_never_more(tasks: ModuleType, inspect: Any) -> None:
    results = [tasks.nap.delay(1.5, number) for number in range(3 * CONCURRENCY)]
    assert [each.get(timeout=40) for each in results] == list(range(3 * CONCURRENCY))
    assert tasks.memory.zscore("tests:most", "n") == CONCURRENCY
    assert inspect("stats")["pool"]["max-concurrency"] == CONCURRENCY


def test_a_blocking_body_does_not_hold_up_the_loop(tasks: ModuleType) -> None:
    slow = [tasks.thread.delay(3.0) for _ in range(2)]
    assert tasks.bridge.delay(0.01).get(timeout=10)
    assert not any(each.ready() for each in slow)
    for each in slow:
        each.get(timeout=10)


def test_retries_chains_groups_and_chords_are_celerys(tasks: ModuleType) -> None:
    assert tasks.flaky.delay(2).get(timeout=10) == 2
    with pytest.raises(KeyError):
        tasks.flaky.delay(9).get(timeout=10)
    assert chain(tasks.add.s(1, 2), tasks.add.s(3)).delay().get(timeout=10) == 6
    assert group(tasks.add.s(n, n) for n in range(5)).delay().get(timeout=10) == [0, 2, 4, 6, 8]
    assert chord((tasks.add.s(n, n) for n in range(30)), tasks.total.s())().get(timeout=20) == 870


def test_an_exception_keeps_its_type_and_attributes(tasks: ModuleType) -> None:
    result = tasks.fail.delay("typed")
    with pytest.raises(InferenceFailed, match="no: do this") as caught:
        result.get(timeout=10)
    assert (caught.value.code, caught.value.status, caught.value.attempts) == ("content_filter", 400, 3)
    assert result.state == "FAILURE"
    assert "raise InferenceFailed" in result.traceback


def test_ignore_and_reject_are_celerys(tasks: ModuleType, worker: Worker) -> None:
    tasks.fail.delay("ignore")
    with pytest.raises(Reject):
        tasks.fail.delay("reject").get(timeout=10)
    worker.wait_for("ignored", timeout=10)
    wait_until(lambda: unacknowledged(tasks) == 0, "both messages are acknowledged")


def test_an_exit_inside_a_task_fails_the_task_and_not_the_worker(tasks: ModuleType, worker: Worker) -> None:
    with pytest.raises(WorkerLostError, match="SystemExit"):
        tasks.fail.delay("exit").get(timeout=10)
    assert tasks.add.delay(1, 1).get(timeout=10) == 2
    wait_until(lambda: unacknowledged(tasks) == 0, "its message is acknowledged")


def test_work_that_somebody_else_cancels_is_a_failure_and_not_a_hang(tasks: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="cancelled by something else"):
        tasks.fail.delay("cancelled").get(timeout=10)


def test_a_task_publishes_its_own_states(tasks: ModuleType) -> None:
    result = tasks.progress.delay()
    wait_until(lambda: result.state == "RUNNING", "the task's own state")
    assert result.info == {"operation": "abc"}
    assert result.get(timeout=10) == "done"


def test_revoking_with_terminate_cancels_the_coroutine(tasks: ModuleType, inspect: Any) -> None:
    result = tasks.nap.delay(60)
    wait_until(lambda: tasks.memory.get("tests:now") == "1", "it runs")
    assert [each["id"] for each in inspect("active")] == [result.id]
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    wait_until(lambda: tasks.memory.get("tests:interrupted") == "CancelledError", "the coroutine was cancelled")
    assert result.state == "REVOKED"
    wait_until(lambda: unacknowledged(tasks) == 0, "its message is acknowledged")
    wait_until(lambda: inspect("stats")["pool"]["in-flight"] == 0, "its place is free")


def test_revoking_what_waits_keeps_it_from_running(tasks: ModuleType) -> None:
    busy = [tasks.nap.delay(4.0) for _ in range(CONCURRENCY)]
    result = tasks.nap.delay(0)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    assert tasks.memory.get(f"tests:started:{result.id}") is None
    for each in busy:
        each.get(timeout=10)


def test_a_soft_time_limit_is_raised_at_the_await_and_may_be_survived(tasks: ModuleType) -> None:
    assert tasks.careful.apply_async((30,), soft_time_limit=0.2).get(timeout=10) == "saved"
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.nap.apply_async((30,), soft_time_limit=0.2).get(timeout=10)
    assert tasks.memory.get("tests:interrupted") == "SoftTimeLimitExceeded"
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.thread_wait.apply_async((30,), soft_time_limit=0.2).get(timeout=10)


def test_a_hard_time_limit_fails_the_task_and_cancels_the_coroutine(tasks: ModuleType, inspect: Any) -> None:
    result = tasks.nap.apply_async((30,), time_limit=0.2)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=10)
    wait_until(lambda: tasks.memory.get("tests:interrupted") == "CancelledError", "the coroutine was cancelled")
    assert result.state == "FAILURE"
    wait_until(lambda: unacknowledged(tasks) == 0, "its message is acknowledged")
    stubborn = tasks.thread.apply_async((0.5,), time_limit=0.2)
    with pytest.raises(TimeLimitExceeded):
        stubborn.get(timeout=10)
    wait_until(lambda: inspect("stats")["pool"]["in-flight"] == 0, "its thread has ended")


def test_remote_control_answers(tasks: ModuleType, worker: Worker, inspect: Any) -> None:
    result = tasks.nap.delay(1)
    wait_until(lambda: inspect("active"), "it is active")
    assert inspect("ping") == {"ok": "pong"}
    assert inspect("reserved") == []
    pool = inspect("stats")["pool"]
    assert pool["implementation"] == "penstock.workers.pool.pool:TaskPool"
    assert (pool["in-flight"], len(pool["processes"])) == (1, 1)
    result.get(timeout=10)
    control = tasks.app.control
    replies = control.pool_grow(3, destination=[worker.name], reply=True) + control.pool_shrink(
        5, destination=[worker.name], reply=True
    )
    assert [each[worker.name]["ok"] for each in replies] == ["pool will grow", "pool will shrink"]
    assert inspect("stats")["pool"]["max-concurrency"] == CONCURRENCY - 2
    tasks.memory.delete("tests:most")
    for each in [tasks.nap.delay(0.3) for _ in range(2 * CONCURRENCY)]:
        each.get(timeout=10)
    assert tasks.memory.zscore("tests:most", "n") == CONCURRENCY - 2
    control.pool_grow(2, destination=[worker.name], reply=True)
    assert control.time_limit("nap", soft=50, hard=60, destination=[worker.name], reply=True)


def test_each_task_is_acknowledged_as_it_ends_whatever_else_runs(tasks: ModuleType) -> None:
    tasks.memory.delete("tests:enough")
    long = tasks.until.delay("tests:enough")
    wait_until(lambda: unacknowledged(tasks) == 1, "it is taken")
    for _ in range(20):
        assert tasks.add.delay(1, 1).get(timeout=10) == 2
        wait_until(lambda: unacknowledged(tasks) == 1, "it is acknowledged")
    assert not long.ready()
    tasks.memory.set("tests:enough", 1)
    long.get(timeout=20)
    wait_until(lambda: unacknowledged(tasks) == 0, "all are acknowledged")


def test_nothing_is_left_of_thousands_of_tasks(tasks: ModuleType) -> None:
    def run(count: int) -> None:
        ids = [tasks.add.apply_async((1, number), ignore_result=True).id for number in range(count)]
        assert ids
        wait_until(lambda: tasks.memory.llen("celery") == 0 and unacknowledged(tasks) == 0, "all are done", 60)

    run(200)
    before = tasks.greenlets.delay().get(timeout=10)
    run(3000)
    after = tasks.greenlets.delay().get(timeout=10)
    assert after == before
    assert max(after) < 10
