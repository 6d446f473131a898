"""Workers are killed, stopped and starved; nothing is lost, and what is paid twice is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from chaos.conftest import DIMENSIONS, SHORT_LEASES, Bench, calls
from support.waiting import wait_until

SKEWED = Path(__file__).resolve().parent.parent / "support" / "skewed"


@pytest.fixture
def bench(celery_setup: CeleryTestSetup) -> Bench:
    """A bench with the app, the broker and the workers of pytest-celery's setup."""
    return Bench(celery_setup.broker.config()["host_url"], celery_setup.app)


@pytest.mark.workers(2, "-c", "20", **SHORT_LEASES)
def test_a_killed_workers_messages_run_elsewhere_and_what_was_paid_twice_is_counted(
    bench: Bench, stand_in: Any, celery_setup: CeleryTestSetup
) -> None:
    server = stand_in(latency_ms=150, dimensions=DIMENSIONS)
    bench.put_docs("docs", server, rate_limit={"requests_per_minute": 1200})
    victim, _ = celery_setup.worker_cluster
    ids = bench.publish("docs", calls(200, 2))
    wait_until(lambda: bench.done(ids) > 40, "some results", 30)
    victim.kill()
    results = bench.collect(ids)
    assert not any(result.failures for result in results)
    stats = server.stats()
    counted = sum(result.effort.possibly_billed_twice for result in results)
    assert stats["billed_again"] <= counted <= 2 * 20, "at most what was in flight is paid twice, and all of it counted"
    assert stats["distinct_texts"] == 400


@pytest.mark.workers(2, "-c", "20", **SHORT_LEASES)
def test_a_slow_request_of_a_live_worker_is_never_run_twice(bench: Bench, stand_in: Any) -> None:
    server = stand_in(latency_ms=7000, dimensions=DIMENSIONS)  # more than twice the visibility timeout
    bench.put_docs("docs", server)
    bench.collect(bench.publish("docs", calls(6)), timeout=30)
    assert server.stats()["requests"] == 6


@pytest.mark.workers(2, "-c", "20")
def test_sigterm_under_load_finishes_or_hands_back_everything(
    bench: Bench, stand_in: Any, celery_setup: CeleryTestSetup
) -> None:
    """A worker that is stopped pays for nothing twice, and says so.

    It once counted a text, now and then, as possibly billed twice that had been sent once. A message counted as begun
    when the feeder handed it to Celery; one that came to the pool just as that closed was never started, went back as
    delivered again, and whoever took it had to suppose that it had been paid for. It counts as begun now when the pool
    accepts its task (``LeasedRequest.on_accepted``). Leases of the usual length: with those of three seconds a machine
    that holds up both processes for so long has them lapse, and the messages of a live worker go to the other.
    """
    server = stand_in(latency_ms=200, dimensions=DIMENSIONS)
    bench.put_docs("docs", server, rate_limit={"requests_per_minute": 1200})
    first, _ = celery_setup.worker_cluster
    ids = bench.publish("docs", calls(160))
    wait_until(lambda: bench.done(ids) > 20, "some results", 30)
    first.kill("SIGTERM")
    assert first.wait(30) == 0
    results = bench.collect(ids)
    assert sum(result.effort.possibly_billed_twice for result in results) == 0
    assert server.stats()["billed_again"] == 0, "a stopped worker finishes what it has sent"


@pytest.mark.workers(1, "-c", "20", **SHORT_LEASES)
def test_a_worker_whose_clock_is_wrong_takes_nothing_from_the_others(bench: Bench, stand_in: Any, worker: Any) -> None:
    server = stand_in(latency_ms=4000, dimensions=DIMENSIONS)
    bench.put_docs("docs", server)
    ids = bench.publish("docs", calls(4))
    wait_until(lambda: server.stats()["in_flight"] == 4, "the right worker has them all", 15)
    for hours in ("+1", "-1"):
        worker(1, args=("-c", "20"), PYTHONPATH=f"{SKEWED}", SKEW_HOURS=hours, **SHORT_LEASES)
    bench.collect(ids, timeout=30)
    assert server.stats()["requests"] == 4


@pytest.mark.workers(1, "-c", "12", **SHORT_LEASES)
def test_a_lane_that_cools_leaves_the_other_lane_alone(
    bench: Bench, stand_in: Any, celery_setup: CeleryTestSetup
) -> None:
    cold = stand_in(dimensions=DIMENSIONS, cool_down_s=3600)
    warm = stand_in(dimensions=DIMENSIONS, latency_ms=20)
    bench.put_docs("cold", cold, model="cold", rate_limit={"requests_per_minute": 6000})
    bench.put_docs("warm", warm, model="warm", rate_limit={"requests_per_minute": 1200})
    only = celery_setup.worker.hostname()
    waiting = bench.publish("cold", calls(100, name="cold"))
    wait_until(lambda: cold.stats()["requests"] > 0, "the cold lane's first request", 20)
    ids = bench.publish("warm", calls(200, name="warm"))
    bench.collect(ids, timeout=120)
    assert warm.stats()["statuses"] == {"200": 200}
    assert cold.stats()["requests"] <= 12, "one cool-down for all"
    assert bench.done(waiting) == 0
    # Half of the worker's places in the cold lane's hands would leave the warm lane half its pace.
    inspect = bench.app.control.inspect([only], timeout=20, limit=1)
    wait_until(lambda: inspect.stats()[only]["pool"]["in-flight"] == 0, "no place is held for the cold lane")
