"""Servers with limits, lanes that feed them, and a clock that costs nothing: minutes of pacing in a second of testing.

The lanes are the real ones: ``workers.lanes.lane`` in each of several workers, its scripts on a real Valkey. Time,
the network and the server are simulated; the server's counting is the stand-in's own (``stand_in.limits``).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import redis

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import TaskType
from penstock.stand_in.limits import quota
from penstock.workers.lanes.lane import Lane, LaneClosed
from penstock.workers.lanes.limiter import Limiter
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.lanes.scripts import run_blocking
from support.virtual_time import START_S, in_virtual_time


class VirtualLimiter(Limiter):
    """The limiter on the event loop's clock, over a blocking client: a call takes no time."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._prefix, self._client, self._clock = prefix, client, None

    async def _run(self, quota: str, operation: str, arguments: Mapping[str, Any]) -> list[Any]:
        now_ms = asyncio.get_running_loop().time() * 1000
        return run_blocking(self._client, self._prefix, quota, operation, arguments, now_ms)


@dataclass(frozen=True)
class Scene:
    """What is simulated.

    Args:
        window: how the server enforces its limits (``stand_in.limits``).
        rpm, tpm: the server's limits, per minute.
        configured: the endpoint's own idea of them.
        delay: how a 429 names its delay: ``s`` (whole seconds, rounded up), ``ms``, or ``none``.
        tokens: bounds of a request's, evenly distributed.
        bytes_per_token: the server's; the lane starts with its own idea of it.
        workers: processes, each with its own lane and window.
        latency_s, jitter_s: of an answer; the jitter is also that between waking and the server's clock.
        seconds: how long.
        relief: at so many seconds, the server's requests per minute become so many.
    """

    window: str
    rpm: float | None
    configured: RateLimit
    tpm: float | None = None
    delay: str = "s"
    tokens: tuple[int, int] = (10, 10)
    bytes_per_token: float = 4.0
    workers: int = 2
    latency_s: float = 0.06
    jitter_s: float = 0.004
    seconds: float = 90.0
    seed: int = 1
    relief: tuple[float, float] | None = None


@dataclass
class Account:
    """What the server saw: times in seconds since the start."""

    scene: Scene
    served: list[tuple[float, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def use(self, since: float = 0.0, until: float | None = None) -> float:
        """Share of the quota (as it was at first) that was used between two times: of the tighter limit."""
        until = self.scene.seconds if until is None else until
        inside = [tokens for at, tokens in self.served if since <= at < until]
        minutes = (until - since) / 60
        shares = [len(inside) / (self.scene.rpm * minutes)] if self.scene.rpm else []
        shares += [sum(inside) / (self.scene.tpm * minutes)] if self.scene.tpm else []
        return max(shares)

    def refusals(self, since: float = 0.0) -> float:
        """Share of the requests since then that were refused."""
        refused = sum(at >= since for at in self.refused)
        return refused / max(1, refused + sum(at >= since for at, _ in self.served))

    def most_in(self, seconds: float) -> int:
        """Most requests served in any span of so many seconds."""
        most, span = 0, deque[float]()
        for at, _ in self.served:
            span.append(at)
            while span[0] <= at - seconds:
                span.popleft()
            most = max(most, len(span))
        return most


def simulate(client: redis.Redis, scene: Scene) -> Account:
    """Run a scene with more work than the quota allows, and tell what the server saw."""
    return in_virtual_time(_Simulation(client, scene).run())


class _Simulation:
    def __init__(self, client: redis.Redis, scene: Scene) -> None:
        self.scene, self.account = scene, Account(scene)
        self.random = random.Random(scene.seed)
        self.server = quota(scene.window, scene.rpm, scene.tpm)
        self.lanes: list[Lane] = []
        self.limiter = VirtualLimiter(client, "sim:")
        # Windows and ratios are kept by quota in a process: each simulation has its own.
        self.endpoint = Endpoint(
            "docs", TaskType.TEXT_EMBEDDING, "openai", {}, rate_limit=scene.configured, quota=f"sim-{uuid4()}"
        )

    async def run(self) -> Account:
        loop = asyncio.get_running_loop()
        self.lanes = [Lane(self.limiter, self.endpoint.quota) for _ in range(self.scene.workers)]
        for lane in self.lanes:
            lane.update_rate(self.endpoint)  # as ``Lanes.lane`` does
        work = [asyncio.create_task(self._work(lane)) for lane in self.lanes]
        if self.scene.relief:
            loop.call_later(self.scene.relief[0], self._relieve, self.scene.relief[1])
        while loop.time() < START_S + self.scene.seconds:
            await asyncio.sleep(0.25)
            done = [task for task in work if task.done()]
            for task in done:
                task.result()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return self.account

    def _relieve(self, rpm: float) -> None:
        self.server = quota(self.scene.window, rpm, self.scene.tpm)

    async def _work(self, lane: Lane) -> None:
        """Keep the lane's window full, as a worker's gate does."""
        calls: set[asyncio.Task[None]] = set()
        while True:
            calls = {call for call in calls if not call.done() or call.result()}
            while len(calls) < lane.window.size(200):
                calls.add(asyncio.create_task(self._call(lane)))
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)

    async def _call(self, lane: Lane) -> None:
        tokens = self.random.randint(*self.scene.tokens)
        size = math.ceil(tokens * self.scene.bytes_per_token)
        while True:
            try:
                permit = await lane.slot(self.endpoint, lambda: lane.ratio.estimate(size), bulk=True)
                break
            except LaneClosed as closed:
                await asyncio.sleep(max(0.01, closed.delay_s))
        await asyncio.sleep(abs(self.random.gauss(0, self.scene.jitter_s / 2)))
        now = asyncio.get_running_loop().time()
        refusal = self.server.admit(now, tokens)
        # A refusal takes less time than an answer: it overtakes those that were accepted before it.
        latency_s = self.scene.latency_s * (1.0 if refusal is None else 0.3)
        await asyncio.sleep(latency_s + abs(self.random.gauss(0, self.scene.jitter_s)))
        if refusal is None:
            self.account.served.append((now - START_S, tokens))
            lane.settle(permit, size, tokens, self.scene.latency_s)
            return
        self.account.refused.append(now - START_S)
        delay_s = self._named(refusal.wait_s)
        words = f"Rate limit reached on {refusal.kind} per min"
        outcome = Outcome(OutcomeKind.RATE_LIMITED, message=words, delay_s=delay_s)
        await lane.refused(permit, outcome, self.random.uniform(0.25, 0.5) if delay_s is None else delay_s)
        for other in self.lanes:
            if other is not lane:
                asyncio.get_running_loop().call_later(0.002, _spread, other)

    def _named(self, wait_s: float) -> float | None:
        if self.scene.delay == "none":
            return None
        return float(max(1, math.ceil(wait_s))) if self.scene.delay == "s" else max(0.001, wait_s)


_told: set[asyncio.Task[None]] = set()


def _spread(lane: Lane) -> None:
    task = asyncio.get_running_loop().create_task(lane.refresh())
    _told.add(task)
    task.add_done_callback(_told.discard)
