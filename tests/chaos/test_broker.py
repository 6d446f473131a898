"""The broker dies and comes back, its connections are cut and held up; nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.conftest import DIMENSIONS, SHORT_LEASES, Bench, calls, make_bench
from support.proxy import Proxy
from support.valkey import ValkeyServer
from support.waiting import wait_until


@pytest.fixture
def own_bench(home: Path, mortal: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", mortal.url)
    yield from make_bench(mortal.url)


def test_a_killed_and_restarted_broker_loses_nothing_and_runs_nothing_twice(
    own_bench: Bench, mortal: ValkeyServer, stand_in: Any, worker: Any
) -> None:
    server = stand_in(latency_ms=300, dimensions=DIMENSIONS)
    own_bench.put_docs("docs", server, rate_limit={"requests_per_minute": 1200})
    worker(2, args=("-c", "20"), **SHORT_LEASES)
    ids = own_bench.publish("docs", calls(150))
    wait_until(lambda: own_bench.done(ids) > 20, "some results", 30)
    mortal.kill()
    time.sleep(1.0)  # the outage itself
    mortal.start()
    own_bench.collect(ids, timeout=60)
    stats = server.stats()
    assert stats["distinct_texts"] == 150
    assert stats["billed_again"] == 0, "work in flight outlived the broker and was acknowledged afterwards"


def test_cut_and_slow_connections_to_the_broker_lose_nothing(
    bench: Bench, valkey: ValkeyServer, stand_in: Any, worker: Any
) -> None:
    proxy = Proxy(valkey.port)
    try:
        server = stand_in(latency_ms=100, dimensions=DIMENSIONS)
        bench.put_docs("docs", server, rate_limit={"requests_per_minute": 1200})
        through_proxy = {"PENSTOCK_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        worker(2, args=("-c", "20"), **SHORT_LEASES, **through_proxy)
        ids = bench.publish("docs", calls(200))
        for wanted in (20, 60, 100):
            wait_until(lambda wanted=wanted: bench.done(ids) > wanted, f"{wanted} results", 40)
            proxy.cut()
        proxy.delay_s = 0.05
        wait_until(lambda: bench.done(ids) > 130, "130 results", 40)
        proxy.cut()
        proxy.delay_s = 0.0
        results = bench.collect(ids)
    finally:
        proxy.stop()
    counted = sum(result.effort.possibly_billed_twice for result in results)
    assert server.stats()["billed_again"] <= max(counted, 0)
    assert server.stats()["distinct_texts"] == 200
