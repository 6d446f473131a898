"""What to do after an attempt: a pure function, and the whole table of it.

=====================  ================================================================================
outcome                decision
=====================  ================================================================================
ok                     go on
rate limited           the lane cools for the server's delay, else for a jittered back-off; a delay above the cap
                       parks; refused again and again while others are served: split, a single input fails
quota exhausted,       park: no further request helps until somebody acts
unauthorised, unknown
deployment or model
too large              split; a single input fails
input refused          split until the culprits stand alone (at once, if the server names the one); a single fails
request refused        fail: the same request would be refused again
server error, no       wait with full jitter; a batch that keeps failing is split; a single input fails when its
answer, malformed      attempts or its time are used up
not sent               wait with full jitter until attempts or time are used up
=====================  ================================================================================

``x-should-retry: true`` waits where the table would fail; ``false`` fails (or splits) where it would wait.
Formula of the back-off: uniform in ``[0, min(CAP_S, BASE_S * 2**(attempts - 1))]`` ("full jitter", Amazon's
Architecture Blog, 2015). A server's own delay is taken as it is.

A refusal for pace cools its lane whatever becomes of the request: the others are not to run into the same refusal.
For how long stands in the decision too (``cool_s``), so that one call of ``decide`` an answer is enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from penstock.workers.lanes.outcome import Outcome, OutcomeKind

BASE_S = 0.5
CAP_S = 20.0
#: Least seconds for which a lane cools where the server names no delay. While it is refused again at once the limiter
#: makes them more.
COOL_S = 0.25
#: Attempts after which a batch that gets no good answer is split.
SPLIT_AFTER = 3
#: Most attempts of an input alone that was split off a failing batch: it is the culprit, or a neighbour out of luck.
ISOLATED_ATTEMPTS = 6
#: Refusals for pace of one request, others being served meanwhile, after which it is taken to be too big for the quota.
PACE_REFUSALS = 6


class Step(StrEnum):
    """The kinds of decision."""

    GO_ON = "go_on"
    WAIT = "wait"
    FAIL = "fail"
    SPLIT = "split"
    PARK = "park"


@dataclass(frozen=True)
class Policy:
    """Budgets. ``attempts`` counts requests for one input; times are seconds."""

    attempts: int = 8
    budget_s: float = 600.0
    max_delay_s: float = 120.0


@dataclass(frozen=True)
class Attempt:
    """What has been tried.

    Args:
        attempts: requests without a good answer so far, this one included, refusals for pace left out; of an input
            that was split off, those in which it stood alone.
        refusals: refusals for pace so far, this one included.
        elapsed_s: seconds since the first.
        inputs: inputs in the request.
        others_served: whether the lane has served other requests since the first attempt.
        isolated: whether it was split off a request that had failed too often.
    """

    attempts: int = 1
    refusals: int = 0
    elapsed_s: float = 0.0
    inputs: int = 1
    others_served: bool = False
    isolated: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do.

    Args:
        step: the kind.
        delay_s: with WAIT, seconds until the next attempt.
        isolate: with SPLIT, the input to set apart, if it is known.
        cool_s: seconds for which the lane cools, whatever the step; 0 where the answer cools no lane. At most the
            policy's ``max_delay_s``.
    """

    step: Step
    delay_s: float = 0.0
    isolate: int | None = None
    cool_s: float = 0.0


def decide(
    outcome: Outcome, attempt: Attempt, policy: Policy, uniform: Callable[[float, float], float] = random.uniform
) -> Decision:
    """Decide what follows an attempt.

    Args:
        outcome: what came of it.
        attempt: what was tried.
        policy: budgets.
        uniform: source of jitter, replaced in tests.
    """
    match outcome.kind:
        case OutcomeKind.OK:
            return Decision(Step.GO_ON)
        case OutcomeKind.QUOTA_EXHAUSTED | OutcomeKind.UNAUTHORIZED | OutcomeKind.NOT_FOUND:
            return Decision(Step.PARK)
        case OutcomeKind.RATE_LIMITED:
            decision = _paced(outcome, attempt, policy, uniform)
            return replace(decision, cool_s=_cool_down(outcome, policy, uniform))
        case OutcomeKind.TOO_LARGE | OutcomeKind.INPUT_REFUSED | OutcomeKind.REQUEST_REFUSED:
            return _refused(outcome, attempt, policy, uniform)
        case _:
            return _unanswered(outcome, attempt, policy, uniform)


def backoff(attempts: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Return seconds to wait after the given number of attempts (1 is the first): full jitter."""
    return uniform(0.0, min(CAP_S, BASE_S * 2 ** min(attempts - 1, 30)))


def _paced(outcome: Outcome, attempt: Attempt, policy: Policy, uniform: Callable[[float, float], float]) -> Decision:
    if outcome.should_retry is False:
        return Decision(Step.FAIL)
    if outcome.delay_s is not None and outcome.delay_s > policy.max_delay_s:
        return Decision(Step.PARK)
    if (attempt.refusals >= PACE_REFUSALS and attempt.others_served) or attempt.refusals >= 4 * PACE_REFUSALS:
        return _split_or_fail(outcome, attempt)
    if outcome.delay_s is not None:
        return Decision(Step.WAIT, outcome.delay_s)
    return Decision(Step.WAIT, max(COOL_S, backoff(attempt.refusals, uniform)))


def _cool_down(outcome: Outcome, policy: Policy, uniform: Callable[[float, float], float]) -> float:
    """Return the seconds for which the lane cools: the named ones, else those of a first refusal.

    They do not grow with this request's refusals: the limiter, which knows those of all requests, makes them more.
    """
    named = outcome.delay_s
    return min(policy.max_delay_s, max(COOL_S, backoff(1, uniform)) if named is None else max(0.0, named))


def _refused(outcome: Outcome, attempt: Attempt, policy: Policy, uniform: Callable[[float, float], float]) -> Decision:
    if outcome.should_retry and not _used_up(attempt, policy):
        return Decision(Step.WAIT, backoff(attempt.attempts, uniform))
    if outcome.kind is OutcomeKind.REQUEST_REFUSED:
        return Decision(Step.FAIL)
    return _split_or_fail(outcome, attempt)


def _unanswered(
    outcome: Outcome, attempt: Attempt, policy: Policy, uniform: Callable[[float, float], float]
) -> Decision:
    if outcome.should_retry is False or _used_up(attempt, policy):
        return _split_or_fail(outcome, attempt)
    if outcome.delay_s is not None and outcome.delay_s > policy.max_delay_s:
        return Decision(Step.PARK)
    stubborn = attempt.attempts >= (SPLIT_AFTER if attempt.others_served else SPLIT_AFTER + 1)
    if outcome.kind is not OutcomeKind.NOT_SENT and attempt.inputs > 1 and stubborn:
        return Decision(Step.SPLIT)
    return Decision(Step.WAIT, backoff(attempt.attempts, uniform) if outcome.delay_s is None else outcome.delay_s)


def _used_up(attempt: Attempt, policy: Policy) -> bool:
    # What stands alone has been tried in company before.
    alone = attempt.isolated and attempt.inputs == 1
    attempts = min(policy.attempts, ISOLATED_ATTEMPTS) if alone else policy.attempts
    return attempt.attempts >= attempts or attempt.elapsed_s >= policy.budget_s


def _split_or_fail(outcome: Outcome, attempt: Attempt) -> Decision:
    if attempt.inputs <= 1 or outcome.kind is OutcomeKind.NOT_SENT:
        return Decision(Step.FAIL)
    index = outcome.input_index
    known = index if index is not None and 0 <= index < attempt.inputs else None
    return Decision(Step.SPLIT, isolate=known)
