"""What a lane learns from a signal: cases as a table, and what must hold of all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workers.lanes.constants import ENOUGH_MS, RISE_S
from penstock.workers.lanes.learning import (
    LEAST,
    LONGEST_S,
    MARGIN,
    SHORTEST_S,
    SMALL_STEP,
    START,
    STEP,
    changes,
    learn,
)
from penstock.workers.lanes.signals import (
    Belated,
    Counts,
    Known,
    LaneRefused,
    Limit,
    Reopened,
    parse_known,
    parse_signal,
)

NOW = 1_700_000_000_000.0
UNKNOWN = Known()


def known(limit: float = 600.0, **more: Any) -> Known:
    """Requests are limited, by configuration or by what was learnt."""
    fields = {"limit": limit, "start": limit, "ceiling": limit, "plateau_s": 24.0, "cut_at": 1.0, "lagged": limit}
    return Known(requests=Limit(in_force=limit, **{**fields, **more}))


def configured(limit: float = 600.0) -> Known:
    return Known(requests=Limit(in_force=limit))


def refused(**more: Any) -> LaneRefused:
    """A refusal in the first cycle of a lane that has been awake for 3 s, unless said otherwise."""
    counts = {name.removeprefix("n_"): more.pop(name) for name in [*more] if name.startswith("n_")}
    fields: dict[str, Any] = {
        "now": NOW, "dimension": "requests", "delay_ms": 0.0, "awake_ms": 3000.0, "measured_ms": 3000.0,
        "mean_tokens": 10.0, "refused_share": 0.01, "tokens": Counts(),
    }  # fmt: skip
    return LaneRefused(**{**fields, **more}, requests=Counts(**{"configured": 600.0, **counts}))


MEASURED = {"awake_ms": 60_000.0, "measured_ms": 10_000.0}

# What was known, what happened, and the ceiling and the plateau that are learnt.
TABLE: list[tuple[str, Known, LaneRefused, float, float]] = [
    # The first refusal, when there is nothing to measure.
    ("guess, no delay: the longer it went well, the smaller the step", configured(), refused(), 600 * 0.75, 0),
    ("guess after 9 s", configured(), refused(awake_ms=9000.0, measured_ms=9000.0), 600 * 0.9, 0),
    ("whole seconds say nothing of the pace", configured(), refused(delay_ms=1000.0), 600 * 0.75, 0),
    ("5 ms too early for places of 100 ms", configured(), refused(delay_ms=5.0), 600 * 100 / 105, SHORTEST_S),
    ("80 ms too early", configured(), refused(delay_ms=80.5), 600 * 100 / 180.5, 0),
    ("far too early: half at most", configured(), refused(delay_ms=1999.5), 300, 0),
    # A long delay: what was accepted is a whole window's worth.
    ("80 in 3 s and the 7 s to come", configured(), refused(delay_ms=7000.5, n_accepted=80),
     80 / 10_000.5 * 60_000 * MARGIN, RISE_S),
    ("whole seconds are rounded up", configured(), refused(delay_ms=7000.0, n_accepted=80),
     80 / 9500 * 60_000 * MARGIN, RISE_S),
    ("never next to nothing", configured(), refused(delay_ms=60_000.0, n_accepted=1), 600 * LEAST, RISE_S),
    ("never more than there was", configured(), refused(delay_ms=3000.0, n_accepted=5000), 600 * START, RISE_S),
    ("nothing accepted is nothing measured", configured(), refused(delay_ms=3000.0), 600 * 0.75, 0),
    ("a first refusal after 12 s measures", configured(),
     refused(awake_ms=12_000.0, measured_ms=12_000.0, n_accepted=100), 100 / 12 * 60 * MARGIN, RISE_S),
    # Nobody knew a limit: half of the pace at which we were going.
    ("no limit known", UNKNOWN, refused(n_configured=0.0, n_reserved=60), 60 / 3 * 60 / 2 * 0.75, 0),
    ("no limit known, at once", UNKNOWN, refused(n_configured=0.0, n_reserved=30, awake_ms=10.0, measured_ms=10.0),
     30 * 60 / 2 * STEP, 0),
    # From one refusal to the next the server had nothing left at both.
    ("measured", known(), refused(**MEASURED, n_accepted=95), 570 * MARGIN, SHORTEST_S),
    ("a pause in it tells too little: the last 10 s", known(), refused(**MEASURED, n_accepted=50, n_accepted_10_s=97),
     582 * MARGIN, SHORTEST_S),
    ("a young lane's last 10 s are not full", known(),
     refused(awake_ms=9000.0, measured_ms=5000.0, n_accepted=45, n_accepted_10_s=97), 540 * MARGIN, SHORTEST_S),
    ("a step at most", known(), refused(**MEASURED, n_accepted=1), 600 * 10 / 11 * MARGIN, SHORTEST_S),
    ("half at most where the delay is long", known(), refused(**MEASURED, n_accepted=1, delay_ms=9000.0),
     300 * MARGIN, SHORTEST_S),
    ("lower in any case", known(), refused(**MEASURED, n_accepted=500), 600 * 0.995, LONGEST_S * 0.8),
    ("after long it was the limit of a moment ago that was too high", known(lagged=590.0),
     refused(awake_ms=60_000.0, measured_ms=30_000.0, n_accepted=100), 590 * MARGIN, 48),
    ("after long, none learnt before", configured(),
     refused(awake_ms=60_000.0, measured_ms=30_000.0, n_accepted=100), 540 * MARGIN, SHORTEST_S),
    # Again so soon.
    ("again so soon", known(), refused(awake_ms=60_000.0, measured_ms=500.0), 600 * (1 - SMALL_STEP), 48),
    ("and again", replace(known(), small_steps=2), refused(awake_ms=60_000.0, measured_ms=500.0),
     600 * (1 - SMALL_STEP * 4), SHORTEST_S),
    ("and again and again", replace(known(), small_steps=99), refused(awake_ms=60_000.0, measured_ms=500.0),
     600 * (1 - SMALL_STEP * 16), SHORTEST_S),
    ("so soon on a young lane is a guess", known(), refused(awake_ms=5000.0, measured_ms=500.0), 600 * 5 / 6, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "signal", "ceiling", "plateau_s"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_a_refusal_teaches(before: Known, signal: LaneRefused, ceiling: float, plateau_s: float) -> None:
    learnt = learn(signal, before).requests
    assert (learnt.ceiling, learnt.plateau_s) == (pytest.approx(ceiling), pytest.approx(plateau_s))
    assert learnt.limit == learnt.start == pytest.approx(ceiling * START)
    assert learnt.cut_at == NOW


def test_a_confirmed_estimate_is_trusted_for_longer_each_time_and_for_a_minute_at_most() -> None:
    plateaus, before = [], configured()
    for _ in range(4):
        before = learn(refused(**MEASURED, n_accepted=95), before)
        before = replace(before, requests=replace(before.requests, in_force=600.0))
        plateaus.append(before.requests.plateau_s)
    assert plateaus == [24, 48, 60, 60]


@pytest.mark.parametrize(
    ("share", "delay_ms", "stray"), [(0.002, 0.0, True), (0.003, 0.0, False), (0.005, 3.0, True), (0.005, 30.0, False)]
)
def test_one_refusal_in_hundreds_hardly_moves_the_limit(share: float, delay_ms: float, stray: bool) -> None:
    learnt = learn(refused(**MEASURED, n_accepted=95, refused_share=share, delay_ms=delay_ms), known())
    assert (learnt.requests.start == 600 * 0.995) == stray


def test_the_share_of_a_young_lane_says_nothing() -> None:
    young = refused(awake_ms=9000.0, measured_ms=500.0, refused_share=0.0)
    assert learn(young, known()).requests.start < 600 * 0.995


@pytest.mark.parametrize(
    ("dimension", "requests", "tokens", "hit"),
    [
        ("requests", (600, 1), (60_000, 59_000), "requests"),
        ("tokens", (600, 599), (60_000, 1), "tokens"),
        ("", (600, 90), (60_000, 5_000), "requests"),
        ("", (600, 50), (60_000, 9_000), "tokens"),
        ("", (0, 90), (60_000, 5), "tokens"),
        ("", (600, 5), (0, 90_000), "requests"),
        ("", (0, 5), (0, 5), "requests"),
    ],
)
def test_the_limit_that_was_named_is_cut_else_the_one_nearer_to_being_used_up(
    dimension: Any, requests: tuple[int, int], tokens: tuple[int, int], hit: str
) -> None:
    signal = refused(dimension=dimension, n_configured=requests[0], n_accepted=requests[1], n_reserved=50)
    signal = replace(signal, tokens=Counts(configured=tokens[0], accepted=tokens[1], reserved=50))
    before = Known(Limit(in_force=requests[0]), Limit(in_force=tokens[0]))
    learnt = learn(signal, before)
    assert [name for name in ("requests", "tokens") if getattr(learnt, name).limit > 0] == [hit]


def test_a_place_of_tokens_is_a_mean_requests_worth() -> None:
    signal = replace(refused(dimension="tokens", delay_ms=5.0, mean_tokens=100.0), tokens=Counts(configured=60_000.0))
    learnt = learn(signal, Known(tokens=Limit(in_force=60_000.0)))
    assert learnt.tokens.ceiling == pytest.approx(60_000 * 100 / 105)


def test_nothing_sent_and_nothing_known_teaches_nothing() -> None:
    assert learn(refused(n_configured=0.0), UNKNOWN) == UNKNOWN


def test_small_steps_are_counted_until_something_is_measured() -> None:
    soon = refused(awake_ms=60_000.0, measured_ms=ENOUGH_MS - 1.0)
    twice = learn(soon, learn(soon, known()))
    assert twice.small_steps == 2
    assert learn(refused(**MEASURED, n_accepted=95), twice).small_steps == 0


# Rough estimates, windows that open again ----------------------------------------------------------------------------


def test_a_rough_estimate_is_corrected_by_what_comes_late_and_its_cut_stays_where_it_was() -> None:
    rough = learn(refused(delay_ms=7000.0, n_accepted=80), configured())
    assert rough.rough == "requests"
    corrected = learn(Belated("requests", 20, 80), rough)
    for name in ("limit", "start", "ceiling"):
        assert getattr(corrected.requests, name) == pytest.approx(getattr(rough.requests, name) * 1.25)
    assert (corrected.requests.cut_at, corrected.requests.plateau_s) == (NOW, RISE_S)


@pytest.mark.parametrize("before", [configured(), known(), replace(known(), rough="tokens")])
def test_an_estimate_that_is_not_rough_is_left_alone(before: Known) -> None:
    assert learn(Belated("requests", 20, 80), before) == before


def test_the_next_refusal_ends_roughness() -> None:
    rough = learn(refused(delay_ms=7000.0, n_accepted=80), configured())
    assert learn(refused(**MEASURED, n_accepted=95), replace(rough, requests=known().requests)).rough == ""


def test_a_window_that_opens_again_allowed_in_the_whole_time_what_it_had_accepted() -> None:
    learnt = learn(Reopened(NOW, 30_000, 60_000, 300, 0), known(600))
    assert learnt.requests.limit == learnt.requests.ceiling == pytest.approx(300 * MARGIN)
    assert (learnt.requests.plateau_s, learnt.requests.cut_at) == (0, NOW)


@pytest.mark.parametrize(
    "signal",
    [
        Reopened(NOW, ENOUGH_MS - 1, 60_000, 300, 0),  # it was closed for so short a time that nothing shows
        Reopened(NOW, 30_000, 60_000, 700, 0),  # more than the limit
        Reopened(NOW, 30_000, 60_000, 0, 0),  # nothing was accepted
        Reopened(NOW, 30_000, 0, 300, 0),  # the lane has idled meanwhile
        Reopened(NOW, 30_000, -5_000, 300, 0),
    ],
)
def test_a_window_that_opens_again_may_teach_nothing(signal: Reopened) -> None:
    assert learn(signal, known(600)) == known(600)


# What holds of all ---------------------------------------------------------------------------------------------------

limits = st.floats(1.0, 1e7)
counts = st.floats(0.0, 1e6)
times = st.floats(0.0, 1e8)


@given(
    limits, st.floats(0.5, 2.0), st.sampled_from(["requests", "tokens", ""]), times, times, times, counts, counts,
    counts, st.floats(0, 1), st.integers(0, 100), st.booleans(),
)  # fmt: skip
def test_a_refusal_lowers_one_limit_a_little_or_more_and_never_to_nothing(
    limit: float, grown: float, dimension: Any, delay_ms: float, awake_ms: float, measured_ms: float,
    accepted: float, accepted_10_s: float, reserved: float, share: float, steps: int, first: bool,
) -> None:  # fmt: skip
    seen = Counts(limit, accepted, reserved, accepted_10_s)
    signal = LaneRefused(
        NOW, dimension, delay_ms, awake_ms, awake_ms if first else min(awake_ms, measured_ms), 10.0, share, seen, seen
    )
    one = Limit(limit, limit, limit, 24.0, 1.0, limit, limit * grown)
    learnt = learn(signal, Known(one, one, small_steps=steps))
    lowered = [new for new in (learnt.requests, learnt.tokens) if new != one]
    assert len(lowered) == 1
    (new,) = lowered
    assert limit * LEAST * START * 0.999 <= new.start < limit
    assert new.start <= new.ceiling <= limit
    assert new.plateau_s == 0 or RISE_S <= new.plateau_s <= LONGEST_S
    assert new.cut_at == NOW


@given(limits, counts, st.floats(0.001, 1e6))
def test_what_comes_late_only_raises(limit: float, accepted: float, before: float) -> None:
    rough = replace(known(limit), rough="requests")
    assert learn(Belated("requests", accepted, before), rough).requests.ceiling >= limit


@given(limits, times, st.floats(-1e8, 1e8), counts, counts)
def test_a_window_that_opens_again_only_lowers(limit: float, closed: float, whole: float, r: float, t: float) -> None:
    learnt = learn(Reopened(NOW, closed, whole, r, t), known(limit))
    assert 0 < learnt.requests.limit <= limit
    assert learnt.tokens == Limit()


# To and from the scripts ---------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_written() -> None:
    before = replace(known(), version=4)
    learnt = learn(refused(awake_ms=60_000.0, measured_ms=500.0), before)
    assert changes(before, learnt) == {
        "requests.limit": learnt.requests.limit,
        "requests.start": learnt.requests.start,
        "requests.ceiling": learnt.requests.ceiling,
        "requests.plateau_s": 48,
        "requests.cut_at": NOW,
        "small_steps": 1,
    }
    assert changes(before, before) == {}


def test_signals_and_what_is_known_are_read_from_the_scripts_words() -> None:
    assert parse_signal("belated", {"dimension": "tokens", "accepted": "2", "before": "8.5"}) == Belated(
        "tokens", 2, 8.5
    )
    words = {"now": "1", "closed_ms": "2", "whole_ms": "3", "requests": "4", "tokens": "5"}
    assert parse_signal("reopened", words) == Reopened(1, 2, 3, 4, 5)
    signal = refused(n_accepted=7.0, n_stood_at=9.0)
    plain = {name: str(value) for name, value in vars(signal).items() if name not in ("requests", "tokens")}
    nested = {f"{d}.{name}": str(n) for d in ("requests", "tokens") for name, n in vars(getattr(signal, d)).items()}
    assert parse_signal("refused", plain | nested) == signal
    before = replace(known(), rough="requests", small_steps=3, version=8)
    nested = {f"{d}.{name}": str(n) for d in ("requests", "tokens") for name, n in vars(getattr(before, d)).items()}
    assert parse_known({"rough": "requests", "small_steps": "3", "version": "8", **nested}) == before
