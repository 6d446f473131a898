"""The two watches over every test bite: keys left for ever in Redis, calls that block a worker's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.names import ENDPOINTS, PROGRESS
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.workers.pool.loop import process_loop
from support import key_leaks, stall_watch
from support.app import own_app
from support.valkey import ValkeyServer
from support.worker import Worker


def test_a_key_that_should_expire_and_does_not_is_told_once(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_leaks, "PATIENCE_S", 0.0)
    leaked = PROGRESS.name("penstock:", task="a-task")
    with valkey.client() as client:
        client.hset(leaked, "left", "for ever")
        client.hset(PROGRESS.name("penstock:", task="another"), "left", "for a while")
        client.expire(PROGRESS.name("penstock:", task="another"), 600)
        client.hset(ENDPOINTS.name("penstock:"), "docs", "{}")
        client.set("penstock:nobody-named-this", 1)
        client.set("named-by-nobody", 1)
    told = [f"{name} (database 0)" for name in ("named-by-nobody", "penstock:nobody-named-this", leaked)]
    assert sorted(key_leaks.leaks_of(valkey.port)) == told
    assert key_leaks.leaks_of(valkey.port) == []


def test_a_server_that_a_test_stops_is_looked_at_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_leaks, "PATIENCE_S", 0.0)
    server = ValkeyServer(folder)
    with server.client() as client:
        client.set("named-by-nobody", 1)
    server.stop()
    assert [ValkeyServer.leaks.pop()] == ["named-by-nobody (database 0)"]


def test_a_blocking_call_of_ours_on_this_processs_loop_is_reported_with_its_stack(
    home: Path, valkey: ValkeyServer, stall_reports: Any
) -> None:
    async def look() -> None:
        with connect(valkey.url) as client:
            Registry(client, load_settings()).list()

    process_loop().run(look())
    found = stall_reports.take()
    assert any("socket.connect on the event loop" in each for each in found)
    assert all("registry" in each for each in found)
    assert all("password" not in each for each in found)


def test_what_takes_no_time_but_the_machines_is_no_stall(stall_reports: Any) -> None:
    async def compute(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    process_loop().run(asyncio.sleep(2 * stall_watch.MOST_S))
    process_loop().run(compute(stall_watch.MOST_S / 4))
    assert stall_reports.take() == []
    process_loop().run(compute(stall_watch.MOST_S * 1.2))
    (found,) = stall_reports.take()
    assert "s of the processor" in found
    assert "compute" in found


def test_a_blocking_call_in_a_worker_process_is_reported(
    home: Path, broker_url: str, worker: Callable[..., list[Worker]], stall_reports: Any
) -> None:
    worker(1, app="support.feeder_app")
    app = own_app("watched")
    assert app.send_task("tests.block").get(timeout=20) == []
    app.close()
    assert any("on the event loop" in each and "registry" in each for each in stall_reports.take())
