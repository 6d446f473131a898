"""The retry decision: its whole table, and what must hold in every cell of it."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tasks.request.retry import RetryState
from penstock.workers.lanes.decision import (
    BASE_S,
    CAP_S,
    PACE_REFUSALS,
    SPLIT_AFTER,
    Attempt,
    Decision,
    Policy,
    Step,
    backoff,
    decide,
)
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

POLICY = Policy(attempts=8, budget_s=600.0, max_delay_s=120.0)
TERMINAL = (OutcomeKind.QUOTA_EXHAUSTED, OutcomeKind.UNAUTHORIZED, OutcomeKind.NOT_FOUND)
UNANSWERED = (OutcomeKind.SERVER_ERROR, OutcomeKind.NO_ANSWER, OutcomeKind.MALFORMED)


def longest(low: float, high: float) -> float:
    """Jitter that always comes out at its upper bound."""
    return high


def ask(outcome: Outcome, attempt: Attempt | None = None) -> Decision:
    return decide(outcome, attempt or Attempt(), POLICY, longest)


def waits(delay_s: float) -> Decision:
    return Decision(Step.WAIT, delay_s)


def cools(decision: Decision, cool_s: float) -> Decision:
    """Have the lane cool too."""
    return replace(decision, cool_s=cool_s)


def splits(isolate: int | None = None) -> Decision:
    return Decision(Step.SPLIT, isolate=isolate)


FAILS, PARKS, GOES_ON = Decision(Step.FAIL), Decision(Step.PARK), Decision(Step.GO_ON)

# Columns: kind, x-should-retry, the named delay_s, attempts, refusals, elapsed_s, inputs, others served, decision.
FEW, MANY = 1, 10
TABLE: list[tuple[OutcomeKind, bool | None, float | None, int, int, float, int, bool, Decision]] = [
    (OutcomeKind.OK, None, None, 1, 0, 0, FEW, False, GOES_ON),
    (OutcomeKind.OK, False, 999, 99, 99, 9999, MANY, True, GOES_ON),
    # Refused for pace: the server's own delay, else a jittered one; too long a delay parks.
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 1, 0, FEW, False, cools(waits(3.0), 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 1, 0, MANY, False, cools(waits(3.0), 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 0.0, 0, 1, 0, MANY, False, cools(waits(0.0), 0.0)),
    (OutcomeKind.RATE_LIMITED, None, None, 0, 1, 0, FEW, False, cools(waits(0.5), 0.5)),
    (OutcomeKind.RATE_LIMITED, None, None, 0, 3, 0, FEW, False, cools(waits(2.0), 0.5)),
    (OutcomeKind.RATE_LIMITED, None, None, 0, 23, 0, FEW, False, cools(waits(20.0), 0.5)),
    (OutcomeKind.RATE_LIMITED, None, 120.0, 0, 1, 0, MANY, False, cools(waits(120.0), 120.0)),
    (OutcomeKind.RATE_LIMITED, None, 120.1, 0, 1, 0, MANY, False, cools(PARKS, 120.0)),
    (OutcomeKind.RATE_LIMITED, None, 86_400.0, 0, 1, 0, FEW, True, cools(PARKS, 120.0)),
    # Pace does not use up the budgets of attempts and of time.
    (OutcomeKind.RATE_LIMITED, None, 3.0, 8, 1, 9999, FEW, False, cools(waits(3.0), 3.0)),
    # Refused again and again while others are served: too big for the quota.
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 5, 0, MANY, True, cools(waits(3.0), 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 6, 0, MANY, True, cools(splits(), 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 6, 0, FEW, True, cools(FAILS, 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 6, 0, FEW, False, cools(waits(3.0), 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 23, 0, FEW, False, cools(waits(3.0), 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 24, 0, FEW, False, cools(FAILS, 3.0)),
    (OutcomeKind.RATE_LIMITED, None, 3.0, 0, 24, 0, MANY, False, cools(splits(), 3.0)),
    (OutcomeKind.RATE_LIMITED, False, 3.0, 0, 1, 0, FEW, False, cools(FAILS, 3.0)),
    (OutcomeKind.RATE_LIMITED, True, 3.0, 0, 1, 0, FEW, False, cools(waits(3.0), 3.0)),
    # Until somebody acts.
    *(
        (outcome_kind, None, None, 1, 0, 0.0, inputs, False, PARKS)
        for outcome_kind in TERMINAL
        for inputs in (FEW, MANY)
    ),
    *(
        (outcome_kind, should, 1.0, 99, 9, 9e9, MANY, True, PARKS)
        for outcome_kind in TERMINAL
        for should in (True, False)
    ),
    # The request as a whole is too large.
    (OutcomeKind.TOO_LARGE, None, None, 1, 0, 0, MANY, False, splits()),
    (OutcomeKind.TOO_LARGE, None, None, 99, 0, 9999, MANY, False, splits()),
    (OutcomeKind.TOO_LARGE, None, None, 1, 0, 0, FEW, False, FAILS),
    (OutcomeKind.TOO_LARGE, False, None, 1, 0, 0, MANY, False, splits()),
    # One input is refused: its neighbours are not to pay for it.
    (OutcomeKind.INPUT_REFUSED, None, None, 1, 0, 0, MANY, False, splits()),
    (OutcomeKind.INPUT_REFUSED, None, None, 99, 0, 9999, MANY, True, splits()),
    (OutcomeKind.INPUT_REFUSED, None, None, 1, 0, 0, FEW, False, FAILS),
    (OutcomeKind.INPUT_REFUSED, False, None, 1, 0, 0, MANY, False, splits()),
    (OutcomeKind.INPUT_REFUSED, True, None, 1, 0, 0, MANY, False, waits(0.5)),
    (OutcomeKind.INPUT_REFUSED, True, None, 2, 0, 0, FEW, False, waits(1.0)),
    (OutcomeKind.INPUT_REFUSED, True, None, 8, 0, 0, FEW, False, FAILS),
    (OutcomeKind.INPUT_REFUSED, True, None, 8, 0, 0, MANY, False, splits()),
    (OutcomeKind.INPUT_REFUSED, True, None, 1, 0, 600, MANY, False, splits()),
    # The request would be refused whatever its inputs: nothing is split.
    (OutcomeKind.REQUEST_REFUSED, None, None, 1, 0, 0, FEW, False, FAILS),
    (OutcomeKind.REQUEST_REFUSED, None, 5.0, 1, 0, 0, MANY, True, FAILS),
    (OutcomeKind.REQUEST_REFUSED, False, None, 1, 0, 0, MANY, False, FAILS),
    (OutcomeKind.REQUEST_REFUSED, True, None, 1, 0, 0, MANY, False, waits(0.5)),
    (OutcomeKind.REQUEST_REFUSED, True, None, 8, 0, 0, MANY, False, FAILS),
]
for _fate in UNANSWERED:
    TABLE += [
        (_fate, None, None, 1, 0, 0, FEW, False, waits(0.5)),
        (_fate, None, None, 1, 0, 0, MANY, False, waits(0.5)),
        (_fate, None, None, 7, 0, 599, FEW, False, waits(20.0)),
        (_fate, None, 7.0, 1, 0, 0, FEW, False, waits(7.0)),
        (_fate, None, 120.1, 1, 0, 0, FEW, False, PARKS),
        (_fate, None, None, 8, 0, 0, FEW, False, FAILS),
        (_fate, None, None, 1, 0, 600, FEW, False, FAILS),
        (_fate, None, 120.1, 8, 0, 0, FEW, False, FAILS),
        # A batch that keeps failing is split: sooner where others are served, for then it is the batch.
        (_fate, None, None, 2, 0, 0, MANY, True, waits(1.0)),
        (_fate, None, None, 3, 0, 0, MANY, True, splits()),
        (_fate, None, None, 3, 0, 0, MANY, False, waits(2.0)),
        (_fate, None, None, 4, 0, 0, MANY, False, splits()),
        (_fate, None, None, 8, 0, 0, MANY, False, splits()),
        (_fate, None, None, 1, 0, 600, MANY, False, splits()),
        (_fate, False, None, 1, 0, 0, FEW, False, FAILS),
        (_fate, False, 5.0, 1, 0, 0, MANY, False, splits()),
        (_fate, True, None, 1, 0, 0, FEW, False, waits(0.5)),
        (_fate, True, None, 8, 0, 0, FEW, False, FAILS),
    ]
TABLE += [
    # What was never sent says nothing of the inputs: nothing is split.
    (OutcomeKind.NOT_SENT, None, None, 1, 0, 0, MANY, False, waits(0.5)),
    (OutcomeKind.NOT_SENT, None, None, 7, 0, 0, MANY, True, waits(20.0)),
    (OutcomeKind.NOT_SENT, None, None, 8, 0, 0, MANY, True, FAILS),
    (OutcomeKind.NOT_SENT, None, None, 8, 0, 0, FEW, True, FAILS),
    (OutcomeKind.NOT_SENT, None, None, 1, 0, 600, MANY, False, FAILS),
    (OutcomeKind.NOT_SENT, False, None, 1, 0, 0, MANY, False, FAILS),
]


@pytest.mark.parametrize(
    (
        "outcome_kind",
        "should_retry",
        "delay_s",
        "attempts",
        "refusals",
        "elapsed_s",
        "inputs",
        "others_served",
        "wanted",
    ),
    TABLE,
)
def test_the_table(
    outcome_kind: OutcomeKind,
    should_retry: bool | None,
    delay_s: float | None,
    attempts: int,
    refusals: int,
    elapsed_s: float,
    inputs: int,
    others_served: bool,
    wanted: Decision,
) -> None:
    outcome = Outcome(outcome_kind, delay_s=delay_s, should_retry=should_retry)
    assert ask(outcome, Attempt(attempts, refusals, elapsed_s, inputs, others_served)) == wanted


def test_the_table_has_every_fate() -> None:
    assert {row[0] for row in TABLE} == set(OutcomeKind)


@pytest.mark.parametrize(("index", "isolate"), [(0, 0), (9, 9), (10, None), (-1, None), (None, None)])
def test_an_input_that_the_server_names_is_set_apart_at_once_if_there_is_such_an_input(
    index: int | None, isolate: int | None
) -> None:
    outcome = Outcome(OutcomeKind.INPUT_REFUSED, input_index=index)
    assert ask(outcome, Attempt(inputs=MANY)) == splits(isolate)


def test_the_named_input_alone_fails() -> None:
    assert ask(Outcome(OutcomeKind.INPUT_REFUSED, input_index=0), Attempt(inputs=1)) == FAILS


# What holds in every cell ------------------------------------------------------------------------------------------

CELLS = list(
    product(
        OutcomeKind,
        (None, True, False),
        (None, 0.0, 1.0, 120.0, 121.0, 1e9),
        (0, 1, 3, 4, 8, 50),
        (0, 1, 6, 24, 50),
        (0.0, 599.0, 600.0, 1e9),
        (1, 2, 2048),
        (False, True),
    )
)


def test_in_every_cell_the_decision_makes_sense() -> None:
    for outcome_kind, should_retry, delay_s, attempts, refusals, elapsed_s, inputs, others in CELLS:
        outcome = Outcome(outcome_kind, delay_s=delay_s, should_retry=should_retry)
        decision = decide(outcome, Attempt(attempts, refusals, elapsed_s, inputs, others), POLICY)
        cell = (outcome_kind, should_retry, delay_s, attempts, refusals, elapsed_s, inputs, others, decision)
        assert (decision.step is Step.GO_ON) == (outcome_kind is OutcomeKind.OK), cell
        assert decision.step is not Step.SPLIT or inputs > 1, cell
        assert 0 <= decision.delay_s <= POLICY.max_delay_s, cell
        assert decision.step is Step.WAIT or decision.delay_s == 0, cell
        assert 0 <= decision.cool_s <= POLICY.max_delay_s, cell
        assert outcome_kind is OutcomeKind.RATE_LIMITED or decision.cool_s == 0, cell
        assert outcome_kind not in TERMINAL or decision.step is Step.PARK, cell
        over_budget = attempts >= POLICY.attempts or elapsed_s >= POLICY.budget_s
        if over_budget and outcome_kind is not OutcomeKind.RATE_LIMITED:
            assert decision.step is not Step.WAIT, cell
        if outcome_kind in (
            OutcomeKind.TOO_LARGE,
            OutcomeKind.INPUT_REFUSED,
            OutcomeKind.REQUEST_REFUSED,
            OutcomeKind.NOT_SENT,
        ):
            assert decision.step is not Step.PARK or delay_s is not None, cell
        if should_retry is False and outcome_kind not in (OutcomeKind.OK, *TERMINAL):
            assert decision.step in (Step.FAIL, Step.SPLIT), cell


@pytest.mark.parametrize(
    "outcome_kind", [outcome_kind for outcome_kind in OutcomeKind if outcome_kind not in (OutcomeKind.OK, *TERMINAL)]
)
@pytest.mark.parametrize("should_retry", [None, True, False])
@pytest.mark.parametrize("others_served", [True, False])
def test_whatever_a_server_goes_on_answering_every_input_comes_to_an_end(
    outcome_kind: OutcomeKind, should_retry: bool | None, others_served: bool
) -> None:
    outcome = Outcome(outcome_kind, should_retry=should_retry)
    requests, todo = 0, [(64, 0, 0)]
    while todo:
        inputs, attempts, refusals = todo.pop()
        requests += 1
        assert requests < 5000, "it goes on for ever"
        attempts, refusals = (
            (attempts, refusals + 1) if outcome_kind is OutcomeKind.RATE_LIMITED else (attempts + 1, refusals)
        )
        step = ask(outcome, Attempt(attempts, refusals, 0.0, inputs, others_served)).step
        if step is Step.WAIT:
            todo.append((inputs, attempts, refusals))
        elif step is Step.SPLIT:
            halves = (inputs // 2, inputs - inputs // 2)
            todo += [(half, RetryState(attempts).part(half).attempts, 0) for half in halves]
        else:
            assert step is Step.FAIL


@pytest.mark.parametrize(
    ("attempts", "budget", "wanted"), [(1, 8, waits(0.5)), (5, 8, waits(8.0)), (6, 8, FAILS), (2, 2, FAILS)]
)
def test_an_input_that_was_split_off_has_tries_of_its_own_but_not_all(
    attempts: int, budget: int, wanted: Decision
) -> None:
    alone = Attempt(attempts, isolated=True)
    outcome = Outcome(OutcomeKind.SERVER_ERROR)
    assert decide(outcome, alone, Policy(attempts=budget), lambda low, high: high) == wanted


def test_chance_does_not_make_a_culprits_neighbours_fail() -> None:
    dice = random.Random(1)
    for _ in range(1000):
        todo = [(range(16), RetryState())]
        while todo:
            texts, attempts = todo.pop()
            if 11 not in texts and dice.random() > 0.1:  # one request in ten goes wrong, whatever is in it
                continue
            attempts.attempts += 1
            step = ask(
                Outcome(OutcomeKind.MALFORMED), Attempt(attempts.attempts, 0, 0.0, len(texts), True, attempts.isolated)
            ).step
            if step is Step.WAIT:
                todo.append((texts, attempts))
            elif step is Step.SPLIT:
                middle = len(texts) // 2
                todo += [(part, attempts.part(len(part))) for part in (texts[:middle], texts[middle:])]
            else:
                assert list(texts) == [11]


# Jitter ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000))
def test_the_back_off_is_full_jitter_under_a_cap(attempts: int) -> None:
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    assert backoff(attempts, uniform) == bounds[0][1] == min(CAP_S, BASE_S * 2 ** min(attempts - 1, 60))
    assert bounds[0][0] == 0.0
    assert 0 <= backoff(attempts) <= CAP_S


def test_a_refusal_for_pace_without_a_delay_waits_a_quarter_of_a_second_at_least() -> None:
    decision = decide(Outcome(OutcomeKind.RATE_LIMITED), Attempt(refusals=1), POLICY, lambda low, high: low)
    assert decision == cools(waits(0.25), 0.25)


@pytest.mark.parametrize(
    ("outcome", "attempt", "step"),
    [
        (Outcome(OutcomeKind.RATE_LIMITED, delay_s=3.0, should_retry=False), Attempt(refusals=1), Step.FAIL),
        (Outcome(OutcomeKind.RATE_LIMITED, delay_s=3.0), Attempt(refusals=6, inputs=2, others_served=True), Step.SPLIT),
        (Outcome(OutcomeKind.RATE_LIMITED, delay_s=3.0), Attempt(refusals=6, others_served=True), Step.FAIL),
        (Outcome(OutcomeKind.RATE_LIMITED, delay_s=3.0), Attempt(refusals=1), Step.WAIT),
    ],
)
def test_a_refusal_for_pace_cools_its_lane_whatever_becomes_of_the_request(
    outcome: Outcome, attempt: Attempt, step: Step
) -> None:
    decision = decide(outcome, attempt, POLICY)
    assert (decision.step, decision.cool_s) == (step, 3.0)


def test_a_lane_cools_no_longer_because_one_request_was_refused_often() -> None:
    outcome = Outcome(OutcomeKind.RATE_LIMITED)
    first, tenth = (decide(outcome, Attempt(refusals=n), POLICY, lambda low, high: high).cool_s for n in (1, 10))
    assert first == tenth == 0.5


def test_too_long_a_delay_cools_for_the_policys_longest() -> None:
    decision = decide(Outcome(OutcomeKind.RATE_LIMITED, delay_s=86_400.0), Attempt(refusals=1), POLICY)
    assert (decision.step, decision.cool_s) == (Step.PARK, POLICY.max_delay_s)


def test_the_budgets_are_the_policys() -> None:
    stubborn = Attempt(attempts=2, elapsed_s=5.0)
    assert decide(Outcome(OutcomeKind.SERVER_ERROR), stubborn, Policy(attempts=2)).step is Step.FAIL
    assert decide(Outcome(OutcomeKind.SERVER_ERROR), stubborn, Policy(budget_s=5.0)).step is Step.FAIL
    assert decide(Outcome(OutcomeKind.RATE_LIMITED, delay_s=2.0), stubborn, Policy(max_delay_s=1.0)).step is Step.PARK
    assert decide(Outcome(OutcomeKind.SERVER_ERROR), stubborn, Policy()).step is Step.WAIT


def test_the_thresholds_leave_room_for_both_splitting_and_failing() -> None:
    assert 1 < SPLIT_AFTER < Policy().attempts
    assert PACE_REFUSALS > 1


@pytest.mark.parametrize("outcome_kind", list(OutcomeKind))
def test_only_what_was_sent_and_not_answered_well_may_be_billed_twice(outcome_kind: OutcomeKind) -> None:
    assert Outcome(outcome_kind).billed == (outcome_kind in (OutcomeKind.NO_ANSWER, OutcomeKind.MALFORMED))
