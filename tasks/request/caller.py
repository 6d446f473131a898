"""Carries requests through a lane, whatever they ask for: permit, send, read, learn, decide, wait, and again.

Every answer is decided upon once; the lane is told of the decision's cool-down, the call acts on its step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import load_service
from penstock.tasks.request.auth import bearer_tokens
from penstock.tasks.request.http import http_client
from penstock.tasks.request.retry import NotAnswered, RetryState
from penstock.tasks.services.base import Refused, Request, Response, Service
from penstock.workers.lanes.decision import Decision, Policy, Step, decide
from penstock.workers.lanes.fair_queue import Permit
from penstock.workers.lanes.lane import Lane, LaneClosed
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Effort
from penstock.workers.runtime import Runtime

T = TypeVar("T")
Send = Callable[[Request, float], Awaitable[Response]]


def _none(_: Any) -> float:
    return 0.0


async def _nothing(_: Any = None) -> None:
    """What is done before sending, and on a refusal, where a task has nothing of its own to do."""


@dataclass(frozen=True)
class Exchange(Generic[T]):
    """One request and its answer, as a task wants them.

    Args:
        build: makes the request, for the endpoint with its credentials in place.
        read: checks and decodes the answer, or raises Refused.
        tokens: tells how many tokens the request is estimated at, when its turn comes.
        size: UTF-8 bytes of input, for the ratio of tokens.
        inputs: inputs in the request: it can be split if there are several.
        used: tokens of the input by the answer's usage, 0 when it said nothing.
        made: tokens charged beyond those of the input: a completion's own.
        send: sends it, for answers that are not read whole; gets the endpoint's time-out, in seconds, too.
        before: is awaited between permit and sending; what it raises ends the call.
        refused: is given each outcome that is no answer, before anything follows; what it raises ends the call.
        operations, lease, lease_s, wait_s: for images, see ``Lane.slot``.
    """

    build: Callable[[Endpoint], Request]
    read: Callable[[Response], T]
    tokens: Callable[[], float]
    size: int
    inputs: int = 1
    used: Callable[[T], float] = _none
    made: Callable[[T], float] = _none
    send: Send | None = None
    before: Callable[[], Awaitable[None]] = _nothing
    refused: Callable[[Outcome], Awaitable[None]] = _nothing
    operations: int = 0
    lease: str = ""
    lease_s: float = 0.0
    wait_s: float | None = None


class Caller:
    """The requests of one call.

    Args:
        runtime: this process's.
        endpoint: whom to ask.
        bulk: whether it is bulk work.
    """

    def __init__(self, runtime: Runtime, endpoint: Endpoint, *, bulk: bool = False) -> None:
        settings = runtime.settings
        self.endpoint, self.bulk = endpoint, bulk
        self.service: Service = load_service(endpoint.service)
        self.lane: Lane = runtime.lanes().lane(endpoint)
        # Made while there is time: who has a permit must not be late.
        self.http, self._tokens = http_client(runtime), bearer_tokens(runtime)
        self._policy = Policy(settings.retry_attempts, settings.retry_budget_s, settings.max_delay_s)
        self.effort = Effort()

    async def permit(self, tokens: Callable[[], float]) -> Permit:
        """Wait for a permit, to be used in ``call``. Raises LaneClosed."""
        return await self.lane.slot(self.endpoint, tokens, bulk=self.bulk)

    async def call(self, exchange: Exchange[T], retry: RetryState | None = None, permit: Permit | None = None) -> T:
        """Ask until there is an answer, or none is to be had.

        Args:
            exchange: what to ask.
            retry: what has been tried for its inputs already.
            permit: to send, where one is there already.

        Raises:
            NotAnswered: the inputs fail, or are to be asked in parts.
            LaneClosed: not now; it carries what had been tried.
        """
        retry = retry or RetryState()
        while True:
            sent: Permit | None = None
            try:
                authorised = await self._authorised()
                sent, permit = permit or await self._slot(exchange, retry), None
                return await self._send(exchange, authorised, sent)
            except Refused as refused:
                outcome = refused.outcome
            retry.count(outcome)
            decision = decide(outcome, retry.attempt(exchange.inputs, self.lane), self._policy)
            await self._learn(outcome, decision, sent, exchange.inputs)
            if sent is not None:
                await exchange.refused(outcome)
            await self._act(outcome, decision, retry)

    async def authorised(self) -> Endpoint:
        """Return the endpoint with valid credentials. Raises Refused."""
        return await self._tokens.authorised(self.endpoint, self.service)

    async def _authorised(self) -> Endpoint:
        try:
            return await self.authorised()
        except Refused:
            self.effort += Effort(requests=1)
            raise

    async def _slot(self, exchange: Exchange[T], retry: RetryState) -> Permit:
        try:
            return await self.lane.slot(
                self.endpoint, exchange.tokens, bulk=self.bulk, operations=exchange.operations, lease=exchange.lease,
                lease_s=exchange.lease_s, wait_s=exchange.wait_s,
            )  # fmt: skip
        except LaneClosed as closed:
            closed.attempts, closed.refusals = retry.attempts, retry.refusals
            raise

    async def _send(self, exchange: Exchange[T], authorised: Endpoint, permit: Permit) -> T:
        """Send once, read the answer, and let the lane learn from a good one. Raises Refused."""
        await exchange.before()
        self.effort += Effort(requests=1)
        started = time.monotonic()
        send = exchange.send or self.http.exchange
        response = await send(exchange.build(authorised), self.endpoint.timeout_s)
        answer = exchange.read(response)
        latency_s = time.monotonic() - started
        self.lane.settle(permit, exchange.size, exchange.used(answer), latency_s, exchange.made(answer))
        self.lane.learn(self.endpoint, self.service.limits(response))
        return answer

    async def _learn(self, outcome: Outcome, decision: Decision, permit: Permit | None, inputs: int) -> None:
        """Tell the lane of an outcome that is no answer. Without a permit it is the token server's, which says nothing
        of the lane."""
        if permit is None:
            return
        if outcome.kind is OutcomeKind.RATE_LIMITED:
            self.effort += Effort(rate_limited=1)
            await self.lane.refused(permit, outcome, decision.cool_s)
            return
        self.lane.learn(self.endpoint, outcome.limits)
        if outcome.billed:
            self.effort += Effort(possibly_billed_twice=inputs)
        await self.lane.failed(outcome)

    async def _act(self, outcome: Outcome, decision: Decision, retry: RetryState) -> None:
        """Do what was decided; returns when the request is to be made again."""
        if decision.step is Step.PARK:
            why = await self.lane.park(self.endpoint, outcome)
            raise LaneClosed("parked", why, 0.0)
        if decision.step is not Step.FAIL:
            self.effort += Effort(retries=1)
        if decision.step in (Step.FAIL, Step.SPLIT):
            raise NotAnswered(outcome, decision, retry)
        if outcome.kind is not OutcomeKind.RATE_LIMITED:  # a lane that cools makes its requests wait by itself
            await asyncio.sleep(decision.delay_s)
