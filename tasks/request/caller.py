"""Carries requests through a lane: leave, send, read, tell the lane, decide. The same for every service and task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import load_service
from penstock.config.errors import InferenceFailed, LaneParked
from penstock.tasks.request.auth import authorised
from penstock.tasks.request.http import client, exchange
from penstock.tasks.services.base import Refused, Request, Response, Service
from penstock.workers.lanes.decision import Attempt, Decision, Policy, Step, decide
from penstock.workers.lanes.fair_queue import Permit
from penstock.workers.lanes.lane import HAND_BACK_S, Lane, LaneClosed
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Effort
from penstock.workers.runtime import Runtime

T = TypeVar("T")
Send = Callable[[Request, float], Awaitable[Response]]


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
    started: float = field(default_factory=time.monotonic)
    isolated: bool = False

    def attempt(self, inputs: int, lane: Lane) -> Attempt:
        """Say it as the decision wants to know it."""
        elapsed = time.monotonic() - self.started
        return Attempt(self.attempts, self.refusals, elapsed, inputs, lane.served_at > self.started, self.isolated)

    def part(self, inputs: int) -> RetryState:
        """Of a part of a request that was split.

        Several inputs are known to be stubborn and are split at their next failure. One input has never been tried
        alone: it gets tries of its own, so that neither its neighbours' misfortunes nor chance make it fail.
        """
        return RetryState(min(self.attempts, 2) if inputs > 1 else 0, sent=self.sent, isolated=True)


class Caller:
    """The requests of one call.

    Args:
        runtime: this process's.
        endpoint: whom to talk to.
        bulk: whether it is bulk work.
    """

    def __init__(self, runtime: Runtime, endpoint: Endpoint, *, bulk: bool = False) -> None:
        settings = runtime.settings
        self.endpoint, self.bulk = endpoint, bulk
        self.service: Service = load_service(endpoint.service)
        self.lane: Lane = runtime.lanes().lane(endpoint)
        self.policy = Policy(settings.retry_attempts, settings.retry_budget_s, settings.max_delay_s)
        self.effort = Effort()

    async def slot(self, tokens: Callable[[], float]) -> Permit:
        """Wait for leave to send."""
        client()  # made while there is time: who has leave must not be late
        return await self.lane.slot(self.endpoint, tokens, bulk=self.bulk)

    async def ask(
        self,
        permit: Permit,
        build: Callable[[Endpoint], Request],
        read: Callable[[Response], T],
        *,
        size: int,
        inputs: int = 1,
        used: Callable[[T], float] = lambda answer: 0.0,
        made: Callable[[T], float] = lambda answer: 0.0,
        send: Send = exchange,
    ) -> T:
        """Send one request, read its answer and tell the lane.

        Args:
            ticket: the leave.
            build: makes the request, for the endpoint with its credentials in place.
            read: checks and decodes the answer, or raises Refused.
            size: UTF-8 bytes of input, for the ratio of tokens.
            inputs: inputs in the request, for the count of those possibly billed twice.
            used: tokens of the input by the answer's usage, 0 when it said nothing.
            made: tokens charged beyond those of the input: a completion's own.
            send: sends it, for answers that are not read whole; gets the endpoint's time-out too.

        Raises:
            Refused: there is no good answer; the lane has been told.
        """
        self.effort += Effort(requests=1)
        started = time.monotonic()
        try:
            request = build(await authorised(self.endpoint, self.service))
            response = await send(request, self.endpoint.timeout_s)
            answer = read(response)
        except Refused as refused:
            await self._tell(permit, refused.outcome, inputs)
            raise
        self.lane.settle(permit, size, used(answer), time.monotonic() - started, made(answer))
        self.lane.learn(self.endpoint, self.service.limits(response))
        return answer

    async def _tell(self, permit: Permit, outcome: Outcome, inputs: int) -> None:
        if outcome.kind is OutcomeKind.RATE_LIMITED:
            self.effort += Effort(rate_limited=1)
            await self.lane.refused(permit, outcome, self._cool_down(outcome))
            return
        self.lane.learn(self.endpoint, outcome.limits)
        if outcome.billed:
            self.effort += Effort(possibly_billed_twice=inputs)
        await self.lane.failed(outcome)

    def _cool_down(self, outcome: Outcome) -> float:
        """Seconds for which the lane cools after a 429."""
        decision = decide(outcome, Attempt(attempts=0, refusals=1), self.policy)
        return min(decision.delay_s, self.policy.max_delay_s)

    async def after(self, outcome: Outcome, retry: RetryState, inputs: int) -> Decision:
        """Decide what follows; wait here if that is it. Counts the try.

        Raises:
            LaneClosed: the lane is parked by this very outcome, or the wait is too long for a worker to hold it.
        """
        retry.sent += 1
        if outcome.kind is OutcomeKind.RATE_LIMITED:
            retry.refusals += 1
        else:
            retry.attempts += 1
        decision = decide(outcome, retry.attempt(inputs, self.lane), self.policy)
        if decision.step is Step.PARK:
            why = await self.lane.park(self.endpoint, outcome)
            raise LaneClosed("parked", why, 0.0)
        if decision.step in (Step.WAIT, Step.SPLIT):
            self.effort += Effort(retries=1)
        # A lane that cools makes its requests wait by itself.
        if decision.step is Step.WAIT and outcome.kind is not OutcomeKind.RATE_LIMITED:
            await asyncio.sleep(decision.delay_s)
        return decision

    async def persist(
        self,
        build: Callable[[Endpoint], Request],
        read: Callable[[Response], T],
        *,
        tokens: Callable[[], float],
        size: int,
        used: Callable[[T], float] = lambda answer: 0.0,
        made: Callable[[T], float] = lambda answer: 0.0,
        send: Send = exchange,
    ) -> T:
        """Ask until there is an answer or none is to be had: for requests that cannot be split.

        Args:
            build, read, size, used, made, send: as for ``ask``.
            tokens: says how many tokens it is estimated at, when its turn comes.

        Raises:
            InferenceFailed: the final "no".
            LaneClosed: not now.
        """
        retry = RetryState()
        while True:
            permit = await self.slot(tokens)
            try:
                return await self.ask(permit, build, read, size=size, used=used, made=made, send=send)
            except Refused as refused:
                decision = await self.after(refused.outcome, retry, 1)
                if decision.step in (Step.FAIL, Step.SPLIT):
                    raise failed(self.endpoint, refused.outcome, self.effort.requests) from None


def failed(endpoint: Endpoint, outcome: Outcome, attempts: int) -> InferenceFailed:
    """Return the error of a call that the service will not do."""
    status = f" (HTTP {outcome.status})" if outcome.status else ""
    message = f"[{endpoint.inference_id}] {outcome.code or outcome.kind.value}{status}: {outcome.message}"
    return InferenceFailed(message, outcome.code or outcome.kind.value, outcome.status, attempts)


def parked(endpoint: Endpoint, closed: LaneClosed) -> LaneParked:
    """Return the error for a caller whose lane is parked."""
    return LaneParked(f"the lane of [{endpoint.inference_id}] is parked: {closed.why}", "lane_parked")


def wait_for(closed: LaneClosed) -> float:
    """Seconds to wait before asking a closed lane again, where nobody else can do the waiting."""
    return min(max(closed.delay_s, 0.2), HAND_BACK_S)
