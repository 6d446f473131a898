"""Embeds the texts of one request, whatever comes: splits until the culprits stand alone, keeps their neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from penstock.tasks.request.caller import Caller, Exchange
from penstock.tasks.request.retry import NotAnswered, RetryState
from penstock.tasks.services.base import EmbedCall, Embeddings
from penstock.workers.lanes.decision import Decision, Step
from penstock.workers.lanes.fair_queue import Permit
from penstock.workers.lanes.lane import LaneClosed
from penstock.workers.lanes.outcome import Outcome
from penstock.workers.results.types import Effort, Failure, Usage


@dataclass
class EmbedBatch:
    """Inputs of one call and what has come of each.

    Args:
        inputs: texts (or mappings, for images).
        sizes: UTF-8 bytes of each.
        rows: the vector of each input that has one.
        failures: the failure of each that has none and will have none.
        usage, effort: what it all cost.
        attempts, refusals: most that any request of it has had without a good answer; they outlive a hand-back.
        on_keep: is told of each request's inputs as they are done while others are not, to put them in safety.
    """

    inputs: Sequence[Any]
    sizes: Sequence[int]
    input_type: str | None = None
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    rows: dict[int, NDArray[Any]] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    usage: Usage = Usage()
    effort: Effort = Effort()
    attempts: int = 0
    refusals: int = 0
    model: str = ""
    on_keep: Callable[[EmbedBatch, Sequence[int]], Awaitable[None]] | None = None

    def retry_state(self) -> RetryState:
        """Return what had been tried before the batch was handed back."""
        return RetryState(self.attempts, self.refusals, sent=self.attempts + self.refusals)

    def open(self, positions: Sequence[int]) -> list[int]:
        """Return those positions of which nothing has come yet."""
        return [n for n in positions if n not in self.rows and n not in self.failures]

    def size(self, positions: Sequence[int]) -> int:
        """Return the UTF-8 bytes of these inputs together."""
        return sum(self.sizes[n] for n in positions)

    async def keep(self, positions: Sequence[int], answer: Embeddings) -> None:
        """Take in the vectors of these inputs."""
        self.rows.update(zip(positions, answer.vectors, strict=True))
        self.usage += replace(answer.usage, requests=1)
        self.model = answer.model or self.model
        if self.on_keep is not None and len(self.rows) + len(self.failures) < len(self.inputs):
            await self.on_keep(self, positions)

    def take_in(self, other: EmbedBatch) -> None:
        """Take in all that has come of another batch over the same inputs."""
        self.rows, self.failures, self.model = other.rows, other.failures, other.model
        self.usage += other.usage
        self.effort += other.effort

    def fail(self, positions: Sequence[int], outcome: Outcome, attempts: int) -> None:
        """Take in that these inputs cannot be done."""
        code = outcome.code or outcome.kind.value
        message = outcome.message or f"the service answered HTTP {outcome.status}"
        for n in positions:
            self.failures[n] = Failure(n, code, message, attempts)


async def embed_positions(
    caller: Caller,
    batch: EmbedBatch,
    positions: Sequence[int],
    retry: RetryState | None = None,
    permit: Permit | None = None,
) -> None:
    """Embed some inputs of a batch in one request, in more if it must be; every one ends with a vector or a failure.

    Args:
        caller: asks.
        batch: takes in what comes of them.
        positions: which inputs.
        retry: what has been tried for them already.
        permit: to send, if there is one already.

    Raises:
        LaneClosed: not now; what has come so far is in the batch.
    """
    try:
        await batch.keep(positions, await caller.call(_exchange(caller, batch, positions), retry, permit))
    except LaneClosed as closed:
        batch.attempts = max(batch.attempts, closed.attempts)
        batch.refusals = max(batch.refusals, closed.refusals)
        raise
    except NotAnswered as no:
        if no.decision.step is Step.FAIL:
            batch.fail(positions, no.outcome, no.retry.sent)
            return
        parts = _parts(positions, no.decision, no.outcome)
        retries = [no.retry.part(len(part)) for part in parts]
    else:
        return
    await in_parallel([embed_positions(caller, batch, part, state) for part, state in zip(parts, retries, strict=True)])


async def in_parallel(work: Sequence[Any]) -> None:
    """Await all; when some could not go on, the others are finished first, so that what they paid for is kept."""
    ends = await asyncio.gather(*work, return_exceptions=True)
    errors = [end for end in ends if isinstance(end, BaseException)]
    serious = [error for error in errors if not isinstance(error, LaneClosed)]
    for error in [*serious, *errors]:
        raise error


def _exchange(caller: Caller, batch: EmbedBatch, positions: Sequence[int]) -> Exchange[Embeddings]:
    call = EmbedCall([batch.inputs[n] for n in positions], batch.input_type, batch.task_settings)
    service, size = caller.service, batch.size(positions)
    return Exchange(
        build=lambda endpoint: service.embed_request(endpoint, call),
        read=lambda response: service.read_embeddings(caller.endpoint, call, response),
        tokens=lambda: caller.lane.ratio.estimate(size),
        size=size,
        inputs=len(positions),
        used=lambda answer: answer.usage.prompt_tokens or answer.usage.total_tokens,
    )


def _parts(positions: Sequence[int], decision: Decision, outcome: Outcome) -> list[Sequence[int]]:
    """Split: the named culprit apart from the rest; into the size the server allows; else in halves."""
    if decision.isolate is not None:
        n = decision.isolate
        return [part for part in (positions[n : n + 1], [*positions[:n], *positions[n + 1 :]]) if part]
    if outcome.max_inputs and 0 < outcome.max_inputs < len(positions):
        return [positions[n : n + outcome.max_inputs] for n in range(0, len(positions), outcome.max_inputs)]
    middle = len(positions) // 2
    return [positions[:middle], positions[middle:]]
