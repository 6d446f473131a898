"""How late an answer is, by the clocks of server and process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workers.lanes.clock import DRIFT, ServerClock

AHEAD_S = 1e9  # the server's clock counts from another time than ours


def lags(takes: list[float], every: float = 0.1, drift: float = 0.0) -> list[float]:
    """Answers given at even times, each of which takes so long."""
    clock = ServerClock()
    said = [AHEAD_S + n * every for n in range(len(takes))]
    return [clock.lag(at, (at - AHEAD_S) * (1 + drift) + take) for at, take in zip(said, takes, strict=True)]


def test_an_answer_is_late_by_what_it_took_longer_than_the_quickest() -> None:
    assert lags([0.0005, 0.002, 0.0005, 0.0013]) == pytest.approx([0, 0.0015, 0, 0.0008], abs=1e-4)


@given(st.lists(st.floats(0, 0.9), min_size=1, max_size=50))
def test_no_answer_is_late_by_more_than_it_took_nor_by_less_than_nothing(takes: list[float]) -> None:
    for lag, take in zip(lags(takes), takes, strict=True):
        assert -1e-6 <= lag <= take + 1e-6


def test_clocks_that_drift_apart_do_not_add_up() -> None:
    found = lags([0.001] * 36_000, drift=DRIFT / 2)
    assert max(found) < 0.001


def test_a_busy_event_loop_makes_answers_late_and_is_no_step_of_a_clock() -> None:
    stall = [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert lags([0.001, *stall, 0.001]) == pytest.approx([0, *(each - 0.001 for each in stall), 0], abs=1e-4)


@pytest.mark.parametrize("step_s", [-3600.0, -1.1, 1.0, 3600.0])
def test_a_large_step_of_the_servers_clock_is_forgotten_at_once(step_s: float) -> None:
    clock = ServerClock()
    clock.lag(AHEAD_S, 0.001)
    found = [clock.lag(AHEAD_S + step_s + at, at + 0.001) for at in (0.1, 0.2, 0.3)]
    assert found == pytest.approx([0, 0, 0], abs=1e-4)


def test_a_small_step_of_the_servers_clock_is_forgotten_in_a_second() -> None:
    clock = ServerClock()
    clock.lag(AHEAD_S, 0.001)
    found = [clock.lag(AHEAD_S - 0.2 + at, at + 0.001) for at in (0.1, 1.0, 1.2, 1.3)]
    assert found == pytest.approx([0.2, 0.2, 0, 0], abs=1e-3)
