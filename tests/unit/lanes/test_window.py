"""How much of a lane one process holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workers.lanes.window import INTERACTIVE, LaneWindow

RATES = st.one_of(st.none(), st.floats(0.001, 10_000))
LATENCIES = st.floats(0.0, 3600)


@pytest.mark.parametrize(
    ("rate", "latency_s", "cap", "size"),
    [
        (10.0, 1.0, 100, 17),  # 10/s x (1.25 s + 0.3 s), and one
        (10.0, 0.0, 100, 4),
        (0.1, 0.1, 100, 2),  # a slow lane still has one message in flight and one ready
        (1000.0, 2.0, 100, 100),
        (None, 1.0, 100, 16),
        (None, 1.0, 1, 1),
        (10.0, 1.0, 1, 1),
        (0.1, 60.0, 2, 2),
    ],
)
def test_it_is_rate_times_latency_with_something_ready(
    rate: float | None, latency_s: float, cap: int, size: int
) -> None:
    assert LaneWindow(rate, latency_s).size(cap) == size


def test_without_a_limit_it_doubles_with_each_round_trip_until_there_is_no_more_room() -> None:
    held, sizes = LaneWindow(), []
    for _ in range(4):
        sizes.append(held.size(100))
        for _ in range(sizes[-1]):
            held.observe(0.1)
    assert sizes == [16, 32, 64, 100]


@given(RATES, LATENCIES, st.integers(1, 10_000))
def test_it_holds_at_least_one_message_and_never_more_than_there_is_room(
    rate: float | None, latency_s: float, cap: int
) -> None:
    held = LaneWindow(rate, latency_s)
    assert 1 <= held.size(cap) <= cap
    assert held.size(cap) <= held.size_interactive(cap) <= cap


@given(RATES, LATENCIES, st.integers(2, 10_000))
def test_the_next_slot_always_finds_a_message_ready(rate: float | None, latency_s: float, cap: int) -> None:
    assert LaneWindow(rate, latency_s).size(cap) >= 2


def test_small_interactive_calls_may_gather_although_the_lane_is_slow() -> None:
    slow = LaneWindow(0.5, 0.1)
    assert slow.size(200) == 2
    assert slow.size_interactive(200) == INTERACTIVE
    assert slow.size_interactive(10) == 10


def test_the_first_latency_is_believed_and_later_ones_are_smoothed() -> None:
    held = LaneWindow(10.0)
    held.observe(0.1)
    assert held.latency_s == pytest.approx(0.1)
    held.observe(1.1)
    assert held.latency_s == pytest.approx(0.3)


@given(st.lists(LATENCIES, min_size=1, max_size=50))
def test_the_smoothed_latency_stays_among_those_seen(seen: list[float]) -> None:
    held = LaneWindow(10.0)
    for latency_s in seen:
        held.observe(latency_s)
    assert min(seen) - 1e-6 <= held.latency_s <= max(seen) + 1e-6
