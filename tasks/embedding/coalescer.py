"""Small interactive calls that wait for the same lane ride in one request; each caller gets its own rows back.

While a lane has no place free, calls gather; when its place comes, as many ride as a request may carry. On an idle lane
the place is there at once, so that nothing is added to a lone call's latency, and nothing ever waits longer than for
its lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

from penstock.config.endpoints.endpoint import Endpoint
from penstock.tasks.embedding.batch import EmbedBatch, embed_positions
from penstock.tasks.request.caller import Caller
from penstock.tasks.request.packing import budget_tokens, pack
from penstock.workers.lanes.fair_queue import Permit
from penstock.workers.results.types import Effort, Failure, Usage
from penstock.workers.runtime import Runtime

#: Calls of at most this many texts, and this many bytes, share a request with others.
SMALL_TEXTS, SMALL_BYTES = 32, 32_768


@dataclass(eq=False)
class PendingCall:
    """One caller's texts: their batch takes in its share of what comes; ``done`` says when that is all."""

    batch: EmbedBatch
    done: asyncio.Future[None]

    @property
    def size(self) -> int:
        """UTF-8 bytes of all texts."""
        return sum(self.batch.sizes)

    def take_in(self, share: EmbedBatch) -> None:
        """Take in what has come. Where that is all, the call is done."""
        self.batch.take_in(share)
        if not self.batch.open(range(len(self.batch.inputs))) and not self.done.done():
            self.done.set_result(None)


class Coalescer:
    """Gathers the calls of one endpoint, version and task settings.

    Args:
        caller: makes a caller for each request.
        endpoint: whom to ask.
        settings, input_type: the calls' task settings.
        on_idle: is called when nobody waits any more and nothing is on its way.
    """

    def __init__(
        self,
        caller: Callable[[], Caller],
        endpoint: Endpoint,
        settings: Mapping[str, Any],
        input_type: str | None,
        on_idle: Callable[[], object],
    ) -> None:
        self._caller, self._endpoint, self._on_idle = caller, endpoint, on_idle
        self._settings, self._input_type = settings, input_type
        self._waiting: deque[PendingCall] = deque()
        self._flushes: set[asyncio.Task[None]] = set()
        self._starting = False

    async def embed(self, batch: EmbedBatch) -> None:
        """Embed a batch's texts with those of others. Raises what ``embed_positions`` raises."""
        call = PendingCall(batch, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._start_flush()
        await call.done

    def _start_flush(self) -> None:
        if self._waiting and not self._starting:
            self._starting = True
            flush = asyncio.get_running_loop().create_task(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        if not (self._waiting or self._flushes):
            self._on_idle()

    async def _flush(self) -> None:
        """Wait for a permit, then send what waits by then, as much as a request may carry."""
        caller = self._caller()
        try:
            permit = await caller.permit(lambda: caller.lane.ratio.estimate(self._next_size()))
        except Exception as exc:
            self._starting = False
            self._throw(self._take_all(), exc)
            return
        calls = self._take(permit, caller)
        self._starting = False
        self._start_flush()
        if not calls:  # all have gone meanwhile
            caller.lane.give_back(permit)
            return
        try:
            await self._send(caller, calls, permit)
        except BaseException as exc:
            self._throw(calls, exc)
            if not isinstance(exc, Exception):
                raise

    async def _send(self, caller: Caller, calls: list[PendingCall], permit: Permit) -> None:
        texts = [text for call in calls for text in call.batch.inputs]
        sizes = [size for call in calls for size in call.batch.sizes]
        batch = EmbedBatch(texts, sizes, self._input_type, self._settings)
        try:
            await embed_positions(caller, batch, range(len(texts)), permit=permit)
        finally:  # what some have got is paid for, though others may have to wait
            start = 0
            for call in calls:
                share = range(start, start + len(call.batch.inputs))
                start = share.stop
                call.take_in(_share(batch, share, caller.effort))

    def _next_size(self) -> int:
        return sum(call.size for call in self._next())

    def _next(self) -> list[PendingCall]:
        """Return the calls that would be sent now: as many as a request may carry."""
        while self._waiting and self._waiting[0].done.done():
            self._waiting.popleft()
        waiting = [call for call in self._waiting if not call.done.done()]
        sizes = [size for call in waiting for size in call.batch.sizes]
        first = next(pack(sizes, self._endpoint.caps, budget_tokens(self._endpoint.rate_limit)), range(0))
        calls: list[PendingCall] = []
        texts = 0
        for call in waiting:
            texts += len(call.batch.inputs)
            if texts > len(first) and calls:
                break
            calls.append(call)
        return calls

    def _take(self, permit: Permit, caller: Caller) -> list[PendingCall]:
        """Take the calls to send: at most what was reserved where tokens are limited."""
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
            if not call.done.done():
                call.done.set_exception(exc if isinstance(exc, Exception) else asyncio.CancelledError())


def _share(batch: EmbedBatch, positions: range, effort: Effort) -> EmbedBatch:
    """Return one call's part of the outcome, renumbered; tokens by its share of the bytes."""
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


class Coalescers:
    """The coalescers of one event loop.

    Args:
        runtime: this process's.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._coalescers: dict[tuple[str, int, bytes, str | None], Coalescer] = {}

    async def embed(self, endpoint: Endpoint, batch: EmbedBatch) -> None:
        """Embed a small call's texts with those of others that ask the same endpoint for the same.

        Raises:
            LaneClosed: not now; what has come so far is in the batch.
        """
        wanted = orjson.dumps(batch.task_settings, option=orjson.OPT_SORT_KEYS, default=str)
        key = (endpoint.inference_id, endpoint.version, wanted, batch.input_type)
        found = self._coalescers.get(key)
        if found is None:
            caller = partial(Caller, self._runtime, endpoint)
            drop = partial(self._coalescers.pop, key, None)  # task settings of a single call's own must not pile up
            found = self._coalescers[key] = Coalescer(caller, endpoint, batch.task_settings, batch.input_type, drop)
        await found.embed(batch)


def coalescers(runtime: Runtime) -> Coalescers:
    """Return the running event loop's coalescers."""
    return runtime.of_loop(Coalescers, lambda: Coalescers(runtime))


def small(sizes: Sequence[int]) -> bool:
    """Whether a call is small enough to share its request."""
    return len(sizes) <= SMALL_TEXTS and sum(sizes) <= SMALL_BYTES
