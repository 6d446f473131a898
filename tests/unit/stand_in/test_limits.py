"""The stand-in's limits, in virtual time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stand_in.limits import Bucket, FixedWindow, SlidingWindow, allowance, is_window, quota

WINDOWS = ["bucket-1s", "bucket-10s", "bucket-minute", "gcra", "fixed-1s", "fixed-10s", "sliding-10s", "sliding-60s"]


def passed(window, per_minute, times, cost=1.0, **more):
    """Tell for each moment whether a request of ``cost`` passes then."""
    limit = allowance(window, per_minute, **more)
    answers = []
    for now in times:
        ok = limit.wait(now, cost) == 0
        if ok:
            limit.take(now, cost)
        answers.append(ok)
    return answers


@pytest.mark.parametrize(
    ("window", "per_minute", "times", "expected"),
    [
        # 120 a minute are 2 a second: a full bucket holds 2, then one comes back each half second.
        ("bucket-1s", 120, [0, 0, 0, 0.49, 0.5, 0.6, 1.0], [True, True, False, False, True, False, True]),
        # Less than one a second: the bucket holds one all the same.
        ("bucket-1s", 30, [0, 1, 2, 3.9, 4], [True, False, True, False, True]),
        ("bucket-minute", 3, [0, 0, 0, 0, 19.9, 20, 20], [True, True, True, False, False, True, False]),
        ("gcra", 60, [0, 0.5, 1.0, 1.999, 2.0, 10, 10, 11], [True, False, True, False, True, True, False, True]),
        ("no-burst", 60, [0, 0.5, 1.0], [True, False, True]),
        ("none-burst", 60, [0, 0.5, 1.0], [True, False, True]),
        # A fixed window knows nothing of what passed just before its start.
        ("fixed-1s", 120, [0.8, 0.9, 0.95, 1.0, 1.0, 1.1], [True, True, False, True, True, False]),
        ("fixed-10s", 12, [9.9, 9.9, 9.9, 10.0, 10.0, 10.0], [True, True, False, True, True, False]),
        # Rounded down: 90 a minute in windows of a second are 1 each.
        ("fixed-1s", 90, [0, 0.5, 1.0, 1.5], [True, False, True, False]),
        # Less than one a window: the window is as long as one needs.
        ("fixed-1s", 30, [0, 1, 2, 3, 4], [True, False, True, False, True]),
        ("sliding-10s", 12, [0, 5, 9.9, 10, 14.9, 15], [True, True, False, True, False, True]),
        ("sliding-60s", 2, [0, 30, 59, 60, 89, 90], [True, True, False, True, False, True]),
        ("minute", 2, [0, 30, 59, 60], [True, True, False, True]),
    ],
)
def test_each_window_passes_what_its_table_says(window, per_minute, times, expected):
    assert passed(window, per_minute, times) == expected


@pytest.mark.parametrize(
    ("window", "waits"),
    [
        # 600 tokens a minute are 10 a second. A batch of 25 passes a bucket of 10 and is then owed in full.
        ("bucket-1s", [0.0, 2.5, 1.5]),
        ("gcra", [0.0, 2.5, 1.5]),
        ("fixed-1s", [0.0, 3.0, 2.0]),
        ("sliding-1s", [0.0, 3.0, 2.0]),
    ],
)
def test_a_cost_above_the_capacity_passes_a_rested_limit_and_is_owed_in_full(window, waits):
    limit = allowance(window, 600)
    found = [limit.wait(0.0, 25)]
    limit.take(0.0, 25)
    found += [limit.wait(0.0, 25), limit.wait(1.0, 25)]
    assert found == pytest.approx(waits)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("per_minute", [7, 60, 100, 3000])
@pytest.mark.parametrize("cost", [1, 3, 90])
def test_a_client_that_waits_as_told_passes_and_gets_the_whole_limit(window, per_minute, cost):
    limit = allowance(window, per_minute)
    now, spent = 0.0, []
    while now < 600 or len(spent) < 50:
        now += limit.wait(now, cost)
        assert limit.wait(now, cost) == 0
        limit.take(now, cost)
        spent.append((now, cost))
    # What was given at once at the start, and the last, which is only owed, are left out.
    steady = sum(cost for moment, cost in spent if moment > 0) - cost
    assert steady / now * 60 <= limit.per_minute * 1.05 + 1
    assert (steady + limit.capacity + cost) / now * 60 >= limit.per_minute * 0.95 * _packing(
        window, limit.capacity, cost
    )


def _packing(window, capacity, cost):
    """Return how much of the limit whole requests of ``cost`` can use."""
    if window.startswith(("bucket", "gcra")):
        return 1.0
    if cost > capacity:
        return cost / (math.ceil(cost / capacity) * capacity)
    return math.floor(capacity / cost) * cost / capacity


steps = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40)), max_size=80)


@given(steps)
def test_a_bucket_never_lets_more_through_than_its_capacity_and_its_rate(asked):
    limit = Bucket(600, 40)
    _holds(limit, asked, lambda span: 40 + span * 10)


@given(steps)
def test_a_sliding_window_holds_in_every_span_of_its_length(asked):
    limit = SlidingWindow(600, 10)
    events = _run(limit, asked)
    for moment, _ in events:
        inside = sum(cost for other, cost in events if moment - 10 + 1e-5 < other <= moment)
        assert inside <= 100


@given(steps)
def test_a_fixed_window_holds_in_each_window_of_the_clock(asked):
    limit = FixedWindow(600, 10)
    events = _run(limit, asked)
    for index in {math.floor((moment + 1e-6) / 10) for moment, _ in events}:
        assert sum(cost for moment, cost in events if math.floor((moment + 1e-6) / 10) == index) <= 100


@given(steps, st.sampled_from(WINDOWS))
def test_a_refused_request_passes_after_just_the_wait_it_was_told(asked, window):
    limit = allowance(window, 600)
    now = 0.0
    for gap, cost in asked:
        now += gap
        wait = limit.wait(now, cost)
        if wait > 1e-3:
            assert limit.wait(now + wait - 1e-3, cost) > 0
        now += wait
        assert limit.wait(now, cost) == 0
        limit.take(now, cost)
        assert limit.used(now) >= cost - 1e-3
        assert limit.reset(now) > 0
        assert limit.used(now + limit.reset(now) + 1e-3) == 0


def _run(limit, asked):
    now, events = 0.0, []
    for gap, cost in asked:
        now += gap
        if limit.wait(now, cost) == 0:
            limit.take(now, cost)
            events.append((now, cost))
    return events


def _holds(limit, asked, allowed):
    events = _run(limit, asked)
    for first, (start, _) in enumerate(events):
        total = 0
        for end, cost in events[first:]:
            total += cost
            assert total <= allowed(end - start) + 1e-3


def test_requests_and_tokens_are_taken_together_or_not_at_all():
    both = quota("bucket-1s", rpm=120, tpm=600)
    assert both.admit(0.0, 10) is None
    refusal = both.admit(0.0, 10)
    assert (refusal.kind, refusal.wait_s) == ("tokens", pytest.approx(1.0))
    # The refused one took no request: the second of the bucket is still there for a request without tokens.
    assert both.admit(0.0, 0) is None
    refusal = both.admit(0.0, 0)
    assert (refusal.kind, refusal.wait_s, refusal.used, refusal.per_minute) == ("requests", pytest.approx(0.5), 2, 120)


def test_the_longer_of_two_waits_is_told():
    both = quota("bucket-1s", rpm=60, tpm=600)
    assert both.admit(0.0, 30) is None
    refusal = both.admit(0.0, 10)
    assert (refusal.kind, refusal.wait_s) == ("tokens", pytest.approx(3.0))


@pytest.mark.parametrize("window", WINDOWS)
def test_refused_requests_count_only_where_that_is_asked_and_never_beyond_the_capacity(window):
    lenient, strict = quota(window, 60, None), quota(window, 60, None, charge_failed=True)
    for _ in range(200):
        lenient.admit(0.0, 1)
        strict.admit(0.0, 1)
    capacity = lenient.requests.capacity
    assert lenient.requests.used(0.0) == pytest.approx(capacity)
    assert strict.requests.used(0.0) == pytest.approx(capacity)
    moment = lenient.admit(0.0, 1).wait_s / 2
    for _ in range(200):
        lenient.admit(moment, 1)
        strict.admit(moment, 1)
    assert strict.requests.used(moment) == pytest.approx(capacity)
    assert lenient.requests.used(moment) <= strict.requests.used(moment)


def test_a_bucket_that_is_hammered_while_failures_count_gives_nothing_back():
    hammered = quota("bucket-1s", 60, None, charge_failed=True)
    assert hammered.admit(0.0, 1) is None
    assert all(hammered.admit(tick / 10, 1) is not None for tick in range(1, 100))
    assert hammered.admit(9.9 + 1.0, 1) is None


def test_burst_is_the_capacity_of_the_bucket_and_tokens_follow_it():
    both = quota("bucket-1s", rpm=60, tpm=6000, burst=5)
    assert both.requests.capacity == 5
    assert both.tokens.capacity == 500


def test_without_limits_everything_passes_and_no_gauge_is_shown():
    free = quota("gcra", None, None)
    assert all(free.admit(0.0, 10**9) is None for _ in range(100))
    assert free.gauges(0.0) == {}


def test_the_window_none_lets_everything_through():
    assert is_window("none")
    assert all(quota("none", 1, 1).admit(0.0, 10**9) is None for _ in range(10))


def test_gauges_tell_what_is_used_and_when_it_is_back():
    both = quota("bucket-minute", rpm=60, tpm=6000)
    both.admit(0.0, 1000)
    gauges = both.gauges(0.0)
    assert (gauges["requests"].used, gauges["requests"].reset_s) == pytest.approx((1, 1.0))
    assert (gauges["tokens"].used, gauges["tokens"].reset_s) == pytest.approx((1000, 10.0))


@pytest.mark.parametrize("name", ["", "bucket", "bucket-s", "bucket-0s", "fixed--1s", "leaky-1s", "bucket-1m"])
def test_an_unknown_window_is_refused_with_the_names_that_exist(name):
    assert not is_window(name)
    with pytest.raises(ValueError, match="bucket-1s"):
        allowance(name, 60)


@pytest.mark.parametrize("name", [*WINDOWS, "window-1s", "window-10s", "bucket-0.5s", "fixed-minute"])
def test_a_known_window_makes_a_limit(name):
    assert is_window(name)
    assert allowance(name, 60).per_minute == pytest.approx(60)
