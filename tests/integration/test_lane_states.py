"""The table of a lane's states, cell by cell, through the scripts on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import redis

from penstock.config.names import endpoint_quotas_key, operations_queue, parse_queue, queue_name, signal_channel
from penstock.workers.lanes.scripts import by_name, run_blocking
from penstock.workers.lanes.states import (
    SIGNALLED,
    TRANSITIONS,
    LaneEvent,
    Permission,
    Sender,
    State,
    fails_at_once,
    may_send,
)
from support.taking import take
from support.valkey import ValkeyServer

PREFIX = "states:"
T0 = 1_700_000_000_000.0
REST = {"threshold": 1, "rest_ms": 60_000}
BY = {"by": "docs", "version": 3}


class Driver:
    """One lane, and the events that happen to it, on a clock that the test sets (0: the server's)."""

    def __init__(self, client: redis.Redis, clock_ms: float = T0) -> None:
        self.client, self.clock_ms = client, clock_ms
        self.signals = client.pubsub(ignore_subscribe_messages=True)
        self.signals.subscribe(signal_channel(PREFIX))

    def run(self, operation: str, **arguments: Any) -> list[Any]:
        return run_blocking(self.client, PREFIX, "q", operation, arguments, self.clock_ms)

    def reserve(self) -> bool:
        return self.run("reserve", tokens=1, ahead_ms=1000)[0] == 1

    @property
    def seen(self) -> dict[str, str]:
        return by_name(self.run("look"))

    @property
    def number(self) -> int:
        """The cool-down's."""
        return int(self.run("report")[2])

    def refuse(self) -> None:
        self.run("refuse", seq=self.number, delay_ms=60_000, named=1, dimension="requests")

    def bring_to(self, state: State) -> None:
        """Bring a fresh lane to a state."""
        self.run("report")
        if state is State.COOLING:
            self.refuse()
        if state in (State.PARKED, State.PROBING):
            self.run("park", why="no credit", **BY)
        if state is State.PROBING:
            self.run("resume")

    def happen(self, event: LaneEvent) -> None:
        match event:
            case LaneEvent.REFUSED:
                self.refuse()
            case LaneEvent.RESTED:
                self.run("fail", **REST)
            case LaneEvent.COOLED:
                if self.seen["state"] in (State.PARKED, State.PROBING):
                    self.run("fail", **REST)  # a cool-down beside the state
                self.signals_since()
                self.clock_ms += 120_000
            case LaneEvent.SUCCEEDED:
                self.run("report", **{"usage.ok": 1, "usage.fresh": 1, "usage.seq": self.number})
            case LaneEvent.PARKED:
                self.run("park", why="again no credit", **BY)
            case LaneEvent.RESUMED | LaneEvent.UNPAUSED:
                self.run("resume")
            case LaneEvent.ENDPOINT_CHANGED:
                self.run("endpoint_changed", by="docs", version=4)
            case LaneEvent.PAUSED:
                self.run("pause", why="by hand")

    def signals_since(self) -> int:
        """Return how many signals came since the last call: those before a mark of our own."""
        self.client.publish(signal_channel(PREFIX), "mark")
        for count, message in enumerate(self.signals.listen()):
            if message["data"] == b"mark":
                return count
        raise AssertionError("the channel was closed")

    def take(self, job_class: str) -> bool:
        """Tell whether the taking script gives a message of this class to a worker."""
        queue = queue_name("docs", job_class)  # type: ignore[arg-type]
        self.client.hset(endpoint_quotas_key(PREFIX), "docs", "q")
        self.client.lpush(f"{PREFIX}{queue}", "{}")
        return bool(take(self.client, PREFIX, only=[queue]).taken)


@pytest.fixture
def driver(valkey: ValkeyServer) -> Iterator[Driver]:
    with valkey.client() as client:
        made = Driver(client)
        yield made
        made.signals.close()


@pytest.mark.parametrize(("state", "event"), list(product(State, LaneEvent)))
def test_each_event_leads_from_each_state_where_the_table_says(driver: Driver, state: State, event: LaneEvent) -> None:
    driver.bring_to(state)
    if event is LaneEvent.UNPAUSED:
        driver.run("pause", why="by hand")
    driver.signals_since()
    driver.happen(event)
    signalled = driver.signals_since() > 0
    seen = driver.seen
    assert seen["state"] == TRANSITIONS[state][event]
    assert seen["paused"] == ("1" if event is LaneEvent.PAUSED else "0")
    nothing_to_say = event is LaneEvent.ENDPOINT_CHANGED and state is not State.PARKED
    assert signalled == (event in SIGNALLED and not nothing_to_say)


@pytest.mark.parametrize(("state", "event"), list(product(State, LaneEvent)))
def test_under_a_pause_the_state_goes_on_by_the_same_arrows(driver: Driver, state: State, event: LaneEvent) -> None:
    driver.bring_to(state)
    driver.run("pause", why="by hand")
    driver.happen(event)
    seen = driver.seen
    resumed = event in (
        LaneEvent.RESUMED,
        LaneEvent.UNPAUSED,
    )  # of a paused lane these are one: a person's `lane resume`
    assert seen["state"] == TRANSITIONS[state][LaneEvent.UNPAUSED if resumed else event]
    assert (seen["paused"], seen["pause_why"]) == (("0", "") if resumed else ("1", "by hand"))


def test_the_table_has_every_cell() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(set(row) == set(LaneEvent) for row in TRANSITIONS.values())


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("sender", [Sender.INTERACTIVE, Sender.BULK])
@pytest.mark.parametrize("state", State)
def test_who_may_send_is_let_through_and_nobody_else(
    driver: Driver, state: State, sender: Sender, paused: bool
) -> None:
    driver.clock_ms = 0  # the taking script has no other
    driver.bring_to(state)
    if paused:
        driver.run("pause", why="by hand")
    permission = may_send(state, sender, paused=paused)
    taken = driver.take(sender)
    assert taken == (permission is not Permission.NONE or fails_at_once(state, sender, paused=paused))
    granted = [driver.reserve() for _ in range(3)]
    assert (
        granted
        == {Permission.ALL: [True] * 3, Permission.ONE: [True, False, False], Permission.NONE: [False] * 3}[permission]
    )
    if permission is Permission.ONE:
        assert not driver.take(sender), "the probe is out"


def test_polls_of_operations_pass_every_lane() -> None:
    assert all(
        may_send(state, Sender.POLL, paused=paused) is Permission.ALL for state in State for paused in (True, False)
    )
    assert parse_queue(operations_queue("pictures")) is None, "their queue has no lane"


def test_a_cooling_lane_that_is_paused_and_resumed_still_cools(driver: Driver) -> None:
    driver.bring_to(State.COOLING)
    driver.run("pause", why="by hand")
    driver.run("resume")
    assert driver.seen["cooling_ms"] == "60000"
    assert not driver.reserve()


def test_one_resume_ends_the_pause_of_a_parked_lane_and_probes_it(driver: Driver) -> None:
    driver.bring_to(State.PARKED)
    driver.run("pause", why="by hand")
    seen = driver.seen
    assert (seen["pause_why"], seen["why"]) == ("by hand", "no credit")
    driver.run("resume")
    assert [driver.reserve() for _ in range(2)] == [True, False]
    assert driver.seen["why"] == "no credit", "until it is known to be over"
    driver.happen(LaneEvent.SUCCEEDED)
    assert (driver.seen["state"], driver.seen["why"]) == ("open", "")


def test_a_probe_waits_for_the_cool_down_beside_it(driver: Driver) -> None:
    driver.bring_to(State.PROBING)
    driver.run("fail", **REST)
    assert not driver.reserve()
    driver.clock_ms += 60_000
    assert [driver.reserve() for _ in range(2)] == [True, False]
