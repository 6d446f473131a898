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
from penstock.tasks.embedding.batch import Batch, embed_positions
from penstock.tasks.request.caller import Conversation
from penstock.tasks.request.packing import budget_tokens, pack
from penstock.workers.lanes.fair_queue import Ticket
from penstock.workers.lanes.lane import LaneClosed
from penstock.workers.results.types import Effort, Failure, Usage
from penstock.workers.runtime import Runtime

#: Calls of at most this many texts, and this many bytes, share a request with others.
SMALL_TEXTS, SMALL_BYTES = 32, 32_768


@dataclass(eq=False)
class Rider:
    """One caller's texts, and where its share of the outcome goes."""

    texts: Sequence[Any]
    sizes: Sequence[int]
    arrived: asyncio.Future[Batch]

    @property
    def size(self) -> int:
        """UTF-8 bytes of all texts."""
        return sum(self.sizes)


class Coach:
    """Gathers the callers of one endpoint, version and task settings."""

    def __init__(self, runtime: Runtime, endpoint: Endpoint, settings: Mapping[str, Any], input_type: str | None):
        self._runtime, self._endpoint = runtime, endpoint
        self._settings, self._input_type = settings, input_type
        self._waiting: deque[Rider] = deque()
        self._trips: set[asyncio.Task[None]] = set()
        self._boarding = 0

    async def ride(self, texts: Sequence[Any], sizes: Sequence[int]) -> Batch:
        """Embed these texts with those of others. Raises what ``embed_positions`` raises."""
        rider = Rider(texts, sizes, asyncio.get_running_loop().create_future())
        self._waiting.append(rider)
        self._board()
        return await rider.arrived

    def _board(self) -> None:
        if self._waiting and not self._boarding:
            self._boarding += 1
            trip = asyncio.get_running_loop().create_task(self._trip())
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)

    async def _trip(self) -> None:
        conversation = Conversation(self._runtime, self._endpoint)
        try:
            ticket = await conversation.slot(lambda: conversation.lane.ratio.estimate(self._next_size()))
        except Exception as exc:
            self._boarding -= 1
            self._throw(self._take_all(), exc)
            return
        riders = self._take(ticket, conversation)
        self._boarding -= 1
        self._board()
        try:
            await self._carry(conversation, riders, ticket)
        except BaseException as exc:
            self._throw(riders, exc)
            if not isinstance(exc, Exception):
                raise

    async def _carry(self, conversation: Conversation, riders: list[Rider], ticket: Ticket) -> None:
        if not riders:
            return
        texts = [text for rider in riders for text in rider.texts]
        sizes = [size for rider in riders for size in rider.sizes]
        batch = Batch(texts, sizes, self._input_type, self._settings)
        try:
            await embed_positions(conversation, batch, range(len(texts)), ticket=ticket)
        except LaneClosed as closed:
            closed.tries, closed.refusals = batch.tries, batch.refusals
            raise
        start = 0
        for rider in riders:
            share = range(start, start + len(rider.texts))
            start = share.stop
            if not rider.arrived.done():
                rider.arrived.set_result(_share(batch, share, conversation.effort))

    def _next_size(self) -> int:
        return sum(rider.size for rider in self._next())

    def _next(self) -> list[Rider]:
        """Return those who would ride now: as many as a request may carry."""
        while self._waiting and self._waiting[0].arrived.done():
            self._waiting.popleft()
        waiting = [rider for rider in self._waiting if not rider.arrived.done()]
        sizes = [size for rider in waiting for size in rider.sizes]
        first = next(pack(sizes, self._endpoint.caps, budget_tokens(self._endpoint.rate_limit)), range(0))
        riders: list[Rider] = []
        texts = 0
        for rider in waiting:
            texts += len(rider.texts)
            if texts > len(first) and riders:
                break
            riders.append(rider)
        return riders

    def _take(self, ticket: Ticket, conversation: Conversation) -> list[Rider]:
        """Take those who ride: at most what was reserved where tokens are limited."""
        limited = bool(self._endpoint.rate_limit.tokens_per_minute)
        riders: list[Rider] = []
        tokens = 0.0
        for rider in self._next():
            tokens += conversation.lane.ratio.estimate(rider.size)
            if limited and riders and tokens > ticket.tokens * 1.05 + 1:
                break
            riders.append(rider)
        gone = set(map(id, riders))
        self._waiting = deque(rider for rider in self._waiting if id(rider) not in gone)
        return riders

    def _take_all(self) -> list[Rider]:
        riders = list(self._waiting)
        self._waiting.clear()
        return riders

    @staticmethod
    def _throw(riders: Sequence[Rider], exc: BaseException) -> None:
        for rider in riders:
            if not rider.arrived.done():
                rider.arrived.set_exception(exc if isinstance(exc, Exception) else asyncio.CancelledError())


def _share(batch: Batch, positions: range, effort: Effort) -> Batch:
    """Return one rider's part of the outcome, renumbered; tokens by its share of the bytes."""
    own = Batch([batch.inputs[n] for n in positions], [batch.sizes[n] for n in positions], model=batch.model)
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


_coaches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Any, ...], Coach]] = WeakKeyDictionary()


def coach(runtime: Runtime, endpoint: Endpoint, settings: Mapping[str, Any], input_type: str | None) -> Coach:
    """Return the coach of an endpoint and settings on this event loop."""
    coaches = _coaches.setdefault(asyncio.get_running_loop(), {})
    wanted = orjson.dumps(settings, option=orjson.OPT_SORT_KEYS, default=str)
    key = (endpoint.inference_id, endpoint.version, wanted, input_type)
    found = coaches.get(key)
    if found is None:
        for old in [known for known in coaches if known[0] == endpoint.inference_id and known[1] != endpoint.version]:
            del coaches[old]
        found = coaches[key] = Coach(runtime, endpoint, settings, input_type)
    return found


def small(sizes: Sequence[int]) -> bool:
    """Whether a call is small enough to share its request."""
    return len(sizes) <= SMALL_TEXTS and sum(sizes) <= SMALL_BYTES
