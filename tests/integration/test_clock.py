"""Scripts go by the clock that they are given, and no rule by a key's expiry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from penstock.config.names import lane_key, sweep_key, unacked_index_key
from penstock.workers.lanes.scripts import by_name, run_blocking
from penstock.workers.lua import script
from support.valkey import ValkeyServer

PREFIX = "clock:"
T0 = 1_700_000_000_000.0


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as made:
        yield made


def turn(client: redis.Redis, at_ms: float) -> bool:
    return bool(script(client, "broker/turn")(keys=[sweep_key(PREFIX)], args=[900], clock_ms=T0 + at_ms))


def test_of_those_who_ask_within_a_period_one_has_the_turn(client: redis.Redis) -> None:
    assert [turn(client, at) for at in (0, 0, 899, 900, 901, 1800)] == [True, False, False, True, False, True]


def test_a_turn_that_was_taken_before_the_clock_was_set_back_holds_nobody_up(client: redis.Redis) -> None:
    assert turn(client, 3_600_000)
    assert [turn(client, at) for at in (0, 1, 900)] == [True, False, True]


def test_leases_run_out_by_the_clock_that_is_given(client: redis.Redis) -> None:
    index = unacked_index_key(PREFIX)
    client.zadd(index, {"early": T0 / 1000, "late": T0 / 1000 + 5})

    def lapsed(at_s: float) -> list[bytes]:
        found: Any = script(client, "broker/lapsed")(keys=[index], args=[10, 100], clock_ms=T0 + at_s * 1000)
        return list(found[::2])

    assert [lapsed(at) for at in (9.9, 10, 15)] == [[], [b"early"], [b"early", b"late"]]
    renewed = script(client, "broker/renew")(keys=[index], args=["early", "gone"], clock_ms=T0 + 12_000)
    assert renewed == 1
    assert lapsed(15) == [b"late"]


@pytest.mark.parametrize(("operation", "kept"), [("pause", True), ("park", True), ("report", False)])
def test_only_lanes_that_nobody_holds_back_are_forgotten(client: redis.Redis, operation: str, kept: bool) -> None:
    arguments = {"why": "by hand", "by": "docs", "version": 1, "requests.header_limit": 60}
    run_blocking(client, PREFIX, "q", operation, arguments, T0)
    assert (client.ttl(lane_key(PREFIX, "q")) == -1) is kept


def test_a_lane_that_is_resumed_may_be_forgotten_again(client: redis.Redis) -> None:
    for operation in ("pause", "resume"):
        run_blocking(client, PREFIX, "q", operation, {"why": ""}, T0)
    assert client.ttl(lane_key(PREFIX, "q")) > 0
    assert by_name(run_blocking(client, PREFIX, "q", "look", {}, T0))["state"] == "open"
