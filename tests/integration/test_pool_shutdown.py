"""Ways for a worker on the asyncio pool to end, and where its messages are then."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from support.waiting import wait_until
from support.worker import Worker

Start = Callable[..., Worker]


def in_flight(tasks: ModuleType) -> int:
    return int(tasks.memory.get("tests:now") or 0)


def messages(tasks: ModuleType) -> tuple[int, int]:
    """How many messages wait, and how many are taken and not acknowledged."""
    return int(tasks.memory.llen("celery")), int(tasks.memory.zcard("unacked_index"))


def send(tasks: ModuleType, *seconds: float) -> list[Any]:
    """Send naps and wait until as many as fit run."""
    results = [tasks.nap.delay(each, each) for each in seconds]
    wait_until(lambda: in_flight(tasks) == min(2, len(seconds)), "they run")
    return results


def assert_quiet(worker: Worker) -> None:
    assert "Traceback" not in worker.log
    assert "never retrieved" not in worker.log


def test_sigterm_finishes_what_is_in_flight_and_leaves_the_rest_on_the_queue(
    pool_app: ModuleType, pool_worker: Start
) -> None:
    worker = pool_worker("-c", "2")
    results = send(pool_app, *[1.0] * 8)
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert [each.state for each in results[:2]] == ["SUCCESS", "SUCCESS"]
    assert messages(pool_app) == (6, 0)
    assert_quiet(worker)


def test_acknowledgements_do_not_wait_for_the_slowest_task_of_a_warm_shutdown(
    pool_app: ModuleType, pool_worker: Start
) -> None:
    worker = pool_worker("-c", "2")
    results = [pool_app.until.delay("tests:short"), pool_app.until.delay("tests:long")]
    wait_until(lambda: in_flight(pool_app) == 2, "they run")
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    pool_app.memory.set("tests:short", 1)
    wait_until(lambda: messages(pool_app) == (0, 1), "the short one is acknowledged while the long one runs")
    pool_app.memory.set("tests:long", 1)
    assert worker.wait() == 0
    assert messages(pool_app) == (0, 0)
    assert [each.state for each in results] == ["SUCCESS", "SUCCESS"]


@pytest.mark.parametrize("numbers", [(signal.SIGQUIT,), (signal.SIGTERM, signal.SIGQUIT), (signal.SIGINT,) * 2])
def test_a_cold_shutdown_hands_everything_back_at_once(
    numbers: tuple[int, ...], pool_app: ModuleType, pool_worker: Start
) -> None:
    worker = pool_worker("-c", "2")
    results = send(pool_app, *[3600.0] * 4)
    for number in numbers:
        before = worker.log.count("worker: ")
        worker.send(number)
        wait_until(lambda before=before: worker.log.count("worker: ") > before, "it says what it does")
    worker.wait(60)
    assert messages(pool_app) == (4, 0)
    assert {each.state for each in results} == {"PENDING"}
    assert pool_app.memory.get("tests:interrupted") == "CancelledError"
    assert_quiet(worker)


def test_a_soft_shutdown_finishes_what_it_can_and_hands_back_the_rest(pool_app: ModuleType, pool_worker: Start) -> None:
    worker = pool_worker("-c", "2", POOL_SOFT="2")
    short, long = send(pool_app, 0.5, 60)
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert (short.state, long.state) == ("SUCCESS", "PENDING")
    assert messages(pool_app) == (1, 0)
    assert_quiet(worker)


def test_a_blocking_body_does_not_keep_a_cold_shutdown(pool_app: ModuleType, pool_worker: Start) -> None:
    worker = pool_worker("-c", "2")
    pool_app.thread.delay(3600)
    wait_until(lambda: pool_app.memory.get("tests:threads"), "it runs")
    worker.send(signal.SIGQUIT)
    worker.wait(60)
    assert messages(pool_app) == (1, 0)


def test_what_a_killed_worker_had_runs_elsewhere(pool_app: ModuleType, pool_worker: Start) -> None:
    first = pool_worker("-c", "2", POOL_VISIBILITY="2")
    results = send(pool_app, 1.0, 1.0)
    first.kill()
    pool_worker("-c", "2", POOL_VISIBILITY="2")
    assert [each.get(timeout=20) for each in results] == [1.0, 1.0]
    wait_until(lambda: messages(pool_app) == (0, 0), "both are acknowledged")


def test_with_early_acknowledgement_too_no_more_than_the_concurrency_are_in_flight(
    pool_app: ModuleType, pool_worker: Start
) -> None:
    worker = pool_worker("-c", "2", "--prefetch-multiplier", "4", POOL_EARLY="1")
    results = send(pool_app, *[0.6] * 6)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert pool_app.memory.zscore("tests:most", "n") == 2
    done = [each.state for each in results].count("SUCCESS")
    assert messages(pool_app) == (6 - done, 0)
    assert done in (2, 3, 4)
