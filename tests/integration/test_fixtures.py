"""The fixtures themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.processes import Child, alive
from support.valkey import ValkeyServer
from support.waiting import wait_until


def test_the_server_is_empty_for_each_test_and_answers_on_port_and_socket(valkey: ValkeyServer) -> None:
    with valkey.client(decode=True) as client:
        assert client.dbsize() == 0
        client.set("tests:a", "1")
    assert valkey.socket.is_socket()


def test_the_next_test_sees_nothing_of_the_last(valkey: ValkeyServer, broker_url: str) -> None:
    assert os.environ["PENSTOCK_BROKER_URL"] == broker_url == valkey.url
    with valkey.client() as client:
        assert client.dbsize() == 0


def test_a_persistent_server_comes_back_with_its_data(mortal: ValkeyServer) -> None:
    with mortal.client() as client:
        client.set("tests:a", "1")
    mortal.kill()
    mortal.start()
    with mortal.client() as client:
        assert client.get("tests:a") == b"1"


def test_a_child_is_ended_with_all_that_it_started(folder: Path) -> None:
    child = Child(["sh", "-c", "sleep 100 & echo pid=$!; wait"], folder / "log")
    child.wait_for("pid=")
    grandchild = int(child.log.split("pid=")[1].split()[0])
    child.kill_all()
    assert not child.running
    wait_until(lambda: not alive(grandchild), "the grandchild is gone")


def test_home_is_set_and_short(home: Path) -> None:
    assert os.environ["PENSTOCK_HOME"] == str(home)
    assert len(str(home)) < 60


def test_waiting_in_vain_tells_for_what() -> None:
    with pytest.raises(AssertionError, match="pigs fly"):
        wait_until(lambda: False, "pigs fly", timeout=0.05)
