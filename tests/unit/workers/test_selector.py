"""Fine timers: never early, and late by less than epoll's own rounding. What is ready is seen at once."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import sys

import pytest

from penstock.workers.pool import selector
from penstock.workers.pool.selector import new_selector_loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


def test_a_wait_ends_no_sooner_than_asked_and_what_is_ready_ends_it() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (0.0, 0.0003, 0.0017, 0.02):
            began = loop.time()
            await asyncio.sleep(seconds)
            assert loop.time() - began >= seconds
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            loop.call_later(0.01, there.send, b"x")
            assert await asyncio.wait_for(loop.sock_recv(here, 1), 30) == b"x"

    with asyncio.Runner(loop_factory=new_selector_loop) as runner:
        runner.run(scene())


@pytest.mark.parametrize("timeout", [0, -1.0, 0.001, None])
def test_every_time_out_sees_what_is_ready(timeout: float | None) -> None:
    found = selector.FineSelector()
    read, write = os.pipe()
    try:
        found.register(read, selectors.EVENT_READ, "data")
        if timeout is not None:
            assert found.select(timeout) == []
        os.write(write, b"x")
        assert [(key.data, events) for key, events in found.select(timeout)] == [("data", selectors.EVENT_READ)]
    finally:
        found.close()
        os.close(read)
        os.close(write)


def test_a_descriptor_too_high_for_select_falls_back_to_epolls_own_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector, "SELECTABLE", 0)
    monkeypatch.setattr(
        "penstock.workers.pool.selector.select.select", lambda *_: pytest.fail("select cannot watch it")
    )
    found = selector.FineSelector()
    try:
        assert found.select(0.001) == []
    finally:
        found.close()
