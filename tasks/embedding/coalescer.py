"""Small interactive calls that wait for the same lane ride in one request; each caller gets its own rows back.

While a lane has no place free, calls gather; when its place comes, as many ride as a request may carry. On an idle lane
the place is there at once, so that nothing is added to a lone call's latency, and nothing ever waits longer than for
its lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from penstock.config.endpoints.endpoint import Endpoint
from penstock.tasks.embedding.batch import EmbedBatch, embed_positions
from penstock.tasks.request.caller import Caller
from penstock.tasks.request.packing import budget_tokens, pack
from penstock.workers.lanes.fair_queue import Permit
from penstock.workers.lanes.lane import LaneClosed
from penstock.workers.results.types import Effort, Failure, Usage
from penstock.workers.runtime import Runtime

#: Calls of at most this many texts, and this many bytes, share a request with others.
SMALL_TEXTS, SMALL_BYTES = 32, 32_768


@dataclass(eq=False)
class PendingCall:
    """One caller's texts, and where its share of the outcome goes."""

    texts: Sequence[Any]
    sizes: Sequence[int]
    result: asyncio.Future[EmbedBatch]

    @property
    def size(self) -> int:
        """UTF-8 bytes of all texts."""
        return sum(self.sizes)


class Coalescer:
    """Gathers the callers of one endpoint, version and task settings."""

    def __init__(self, runtime: Runtime, endpoint: Endpoint, settings: Mapping[str, Any], input_type: str | None):
        self._runtime, self._endpoint = runtime, endpoint
        self._settings, self._input_type = settings, input_type
        self._waiting: deque[PendingCall] = deque()
        self._flushes: set[asyncio.Task[None]] = set()
        self._starting = 0

    async def embed(self, texts: Sequence[Any], sizes: Sequence[int]) -> EmbedBatch:
        """Embed these texts with those of others. Raises what ``embed_positions`` raises."""
        call = PendingCall(texts, sizes, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._start_flush()
        return await call.result

    def _start_flush(self) -> None:
        if self._waiting and not self._starting:
            self._starting += 1
            flush = asyncio.get_running_loop().create_task(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)

    async def _flush(self) -> None:
        caller = Caller(self._runtime, self._endpoint)
        try:
            permit = await caller.slot(lambda: caller.lane.ratio.estimate(self._next_size()))
        except Exception as exc:
            self._starting -= 1
            self._throw(self._take_all(), exc)
            return
        calls = self._take(permit, caller)
        self._starting -= 1
        self._start_flush()
        try:
            await self._carry(caller, calls, permit)
        except BaseException as exc:
            self._throw(calls, exc)
            if not isinstance(exc, Exception):
                raise

    async def _carry(self, caller: Caller, calls: list[PendingCall], permit: Permit) -> None:
        if not calls:
            return
        texts = [text for call in calls for text in call.texts]
        sizes = [size for call in calls for size in call.sizes]
        batch = EmbedBatch(texts, sizes, self._input_type, self._settings)
        try:
            await embed_positions(caller, batch, range(len(texts)), permit=permit)
        except LaneClosed as closed:
            closed.attempts, closed.refusals = batch.attempts, batch.refusals
            raise
        start = 0
        for call in calls:
            share = range(start, start + len(call.texts))
            start = share.stop
            if not call.result.done():
                call.result.set_result(_share(batch, share, caller.effort))

    def _next_size(self) -> int:
        return sum(call.size for call in self._next())

    def _next(self) -> list[PendingCall]:
        """Return those who would ride now: as many as a request may carry."""
        while self._waiting and self._waiting[0].result.done():
            self._waiting.popleft()
        waiting = [call for call in self._waiting if not call.result.done()]
        sizes = [size for call in waiting for size in call.sizes]
        first = next(pack(sizes, self._endpoint.caps, budget_tokens(self._endpoint.rate_limit)), range(0))
        calls: list[PendingCall] = []
        texts = 0
        for call in waiting:
            texts += len(call.texts)
            if texts > len(first) and calls:
                break
            calls.append(call)
        return calls

    def _take(self, permit: Permit, caller: Caller) -> list[PendingCall]:
        """Take those who ride: at most what was reserved where tokens are limited."""
        limited = bool(self._endpoint.rate_limit.tokens_per_minute)
        calls: list[PendingCall] = []
        tokens = 0.0
        for call in self._next():
            tokens += caller.lane.ratio.estimate(call.size)
            if limited and calls and tokens > permit.tokens * 1.05 + 1:
                break
            calls.append(call)
        gone = set(map(id, calls))
        self._waiting = deque(call for call in self._waiting if id(call) not in gone)
        return calls

    def _take_all(self) -> list[PendingCall]:
        calls = list(self._waiting)
        self._waiting.clear()
        return calls

    @staticmethod
    def _throw(calls: Sequence[PendingCall], exc: BaseException) -> None:
        for call in calls:
            if not call.result.done():
                call.result.set_exception(exc if isinstance(exc, Exception) else asyncio.CancelledError())


def _share(batch: EmbedBatch, positions: range, effort: Effort) -> EmbedBatch:
    """Return one rider's part of the outcome, renumbered; tokens by its share of the bytes."""
    own = EmbedBatch([batch.inputs[n] for n in positions], [batch.sizes[n] for n in positions], model=batch.model)
    own.rows = {n - positions.start: batch.rows[n] for n in positions if n in batch.rows}
    own.failures = {
        n - positions.start: Failure(n - positions.start, failure.code, failure.message, failure.attempts)
        for n in positions
        if (failure := batch.failures.get(n)) is not None
    }
    part = sum(own.sizes) / (sum(batch.sizes) or 1)
    usage = batch.usage
    own.usage = Usage(round(usage.prompt_tokens * part), 0, round(usage.total_tokens * part), usage.requests)
    own.effort = replace(effort, possibly_billed_twice=min(effort.possibly_billed_twice, len(own.inputs)))
    return own


_coalescers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Any, ...], Coalescer]] = WeakKeyDictionary()


def coalescer(runtime: Runtime, endpoint: Endpoint, settings: Mapping[str, Any], input_type: str | None) -> Coalescer:
    """Return the coach of an endpoint and settings on this event loop."""
    coalescers = _coalescers.setdefault(asyncio.get_running_loop(), {})
    wanted = orjson.dumps(settings, option=orjson.OPT_SORT_KEYS, default=str)
    key = (endpoint.inference_id, endpoint.version, wanted, input_type)
    found = coalescers.get(key)
    if found is None:
        for old in [
            known for known in coalescers if known[0] == endpoint.inference_id and known[1] != endpoint.version
        ]:
            del coalescers[old]
        found = coalescers[key] = Coalescer(runtime, endpoint, settings, input_type)
    return found


def small(sizes: Sequence[int]) -> bool:
    """Whether a call is small enough to share its request."""
    return len(sizes) <= SMALL_TEXTS and sum(sizes) <= SMALL_BYTES
