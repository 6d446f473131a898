"""What has been tried for one request's inputs, and how a call ends that gets no answer. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.errors import InferenceFailed, LaneParked
from penstock.workers.lanes.decision import Attempt, Decision
from penstock.workers.lanes.lane import Lane, LaneClosed
from penstock.workers.lanes.outcome import Outcome, OutcomeKind


@dataclass
class RetryState:
    """What has been tried for one request's inputs; goes with them when they are split.

    Args:
        attempts, refusals: what counts towards the decision; see ``Attempt``.
        sent: requests in which they were.
        started: when, by the monotonic clock, in seconds.
        isolated: whether they were split off a request that had failed too often.
    """

    attempts: int = 0
    refusals: int = 0
    sent: int = 0
    started: float = field(default_factory=lambda: time.monotonic())  # looked up when called: tests have a clock
    isolated: bool = False

    def count(self, outcome: Outcome) -> None:
        """Take in one more request without a good answer."""
        self.sent += 1
        if outcome.kind is OutcomeKind.RATE_LIMITED:
            self.refusals += 1
        else:
            self.attempts += 1

    def attempt(self, inputs: int, lane: Lane) -> Attempt:
        """Say it as the decision wants to know it."""
        elapsed = time.monotonic() - self.started
        return Attempt(self.attempts, self.refusals, elapsed, inputs, lane.served_at > self.started, self.isolated)

    def part(self, inputs: int) -> RetryState:
        """Return the state of a part of a request that was split.

        Several inputs are known to be stubborn and are split at their next failure. One input has never been tried
        alone: it gets attempts of its own, so that neither its neighbours' misfortunes nor chance make it fail.
        """
        return RetryState(min(self.attempts, 2) if inputs > 1 else 0, sent=self.sent, isolated=True)


class NotAnswered(Exception):
    """There will be no answer to this request: its inputs fail, or go on in parts.

    ``decision`` says which (FAIL or SPLIT), ``outcome`` why, ``retry`` what had been tried.
    """

    def __init__(self, outcome: Outcome, decision: Decision, retry: RetryState) -> None:
        super().__init__(f"{outcome.kind}: {decision.step}")
        self.outcome, self.decision, self.retry = outcome, decision, retry


def failed(endpoint: Endpoint, outcome: Outcome, attempts: int) -> InferenceFailed:
    """Return the error of a call that the service will not do."""
    status = f" (HTTP {outcome.status})" if outcome.status else ""
    code = outcome.code or outcome.kind.value
    return InferenceFailed(
        f"[{endpoint.inference_id}] {code}{status}: {outcome.message}", code, outcome.status, attempts
    )


def parked(endpoint: Endpoint, closed: LaneClosed) -> LaneParked:
    """Return the error for a caller whose lane is parked."""
    return LaneParked(f"the lane of [{endpoint.inference_id}] is parked: {closed.why}", "lane_parked")
