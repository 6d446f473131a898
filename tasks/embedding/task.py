"""What carries out ``embed``: texts to vectors through the endpoint's lane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid
from penstock.tasks.embedding.batch import EmbedBatch, embed_positions, in_parallel
from penstock.tasks.embedding.coalescer import coalescers, small
from penstock.tasks.embedding.progress import Progress
from penstock.tasks.request.caller import Caller
from penstock.tasks.request.endpoints import endpoint_for
from penstock.tasks.request.packing import budget_tokens, certainly_too_long, pack
from penstock.workers.lanes.tokens import byte_length
from penstock.workers.pool.loop import wait
from penstock.workers.results.types import CompleteResult, EmbedResult, Failure
from penstock.workers.runtime import Runtime, runtime

EMBEDDING = (TaskType.TEXT_EMBEDDING, TaskType.IMAGE_EMBEDDING)


def embed(self: Any, texts: Sequence[Any], endpoint_id: str, **overrides: Any) -> EmbedResult:
    """Carry out ``penstock.tasks.embed``, where its arguments and errors are told."""
    return wait(_embed(self, texts, endpoint_id, overrides))


async def _embed(task: Any, texts: Sequence[Any], endpoint_id: str, overrides: Mapping[str, Any]) -> EmbedResult:
    shared = runtime()
    endpoint = await endpoint_for("embed", EMBEDDING, endpoint_id, shared)
    batch = prepare(endpoint, texts, overrides)
    progress = Progress(shared, task.request)
    if progress.delivery.redelivered:
        await progress.restore(batch)
    await progress.delivery.until_open(
        endpoint,
        work=lambda: _work(shared, endpoint, batch, progress),
        keep=lambda closed: progress.keep(batch, closed),
    )
    await progress.finish()
    return result(batch)


async def _work(shared: Runtime, endpoint: Endpoint, batch: EmbedBatch, progress: Progress) -> None:
    """Embed what is still open in the batch."""
    positions = batch.open(range(len(batch.inputs)))
    bulk = progress.delivery.bulk
    if not positions:
        return
    sizes = [batch.sizes[n] for n in positions]
    if not bulk and small(sizes) and len(positions) == len(batch.inputs) and not batch.attempts + batch.refusals:
        await coalescers(shared).embed(endpoint, batch)
        return
    caller = Caller(shared, endpoint, bulk=bulk)
    ratio = caller.lane.ratio.bytes_per_token
    requests = pack(sizes, endpoint.caps, budget_tokens(endpoint.rate_limit), ratio)
    batch.on_keep = progress.checkpoint
    try:
        work = [embed_positions(caller, batch, [positions[n] for n in each], batch.retry_state()) for each in requests]
        await in_parallel(work)
    finally:
        batch.effort += caller.effort


def prepare(endpoint: Endpoint, texts: Any, overrides: Mapping[str, Any]) -> EmbedBatch:
    """Check a call's inputs: what can never be sent fails here, alone.

    Raises:
        InputInvalid: ``texts`` is no list.
    """
    if isinstance(texts, str | Mapping | CompleteResult):
        texts = [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise InputInvalid(f"[texts] must be a list of strings, not {type(texts).__name__}")
    settings = {**endpoint.task_settings, **overrides}
    input_type = settings.pop("input_type", None)
    images = endpoint.task_type is TaskType.IMAGE_EMBEDDING
    inputs = [_image(given) if images else _text(given) for given in texts]
    sizes = [byte_length(value if isinstance(value, str) else str(value)) for value in inputs]
    fault = _image_fault if images else _text_fault
    faults = {n: fault(value, sizes[n], endpoint) for n, value in enumerate(inputs)}
    failures = {n: Failure(n, *why) for n, why in faults.items() if why is not None}
    return EmbedBatch(inputs, sizes, input_type, settings, failures=failures)


Fault = tuple[str, str] | None


def _text(given: Any) -> Any:
    """Return a text, or what was given in its place."""
    if isinstance(given, CompleteResult):
        return given.text
    return given.get("text") if isinstance(given, Mapping) else given


def _text_fault(text: Any, size: int, endpoint: Endpoint) -> Fault:
    """Return the code and message of a text that can never be sent, None for any other."""
    if not isinstance(text, str):
        return "invalid_text", f"a text must be a string, not {type(text).__name__}"
    if not text.strip():
        return "empty_text", "the text is empty or white space; services refuse such input"
    if certainly_too_long(size, endpoint.caps):
        limit = endpoint.caps.input_tokens
        return "input_too_long", f"the text is far over the {limit} tokens of one input: chunk it first"
    return None


def _image(given: Any) -> Any:
    return dict(given) if isinstance(given, Mapping) else given


def _image_fault(image: Any, size: int, endpoint: Endpoint) -> Fault:
    if isinstance(image, dict) and isinstance(image.get("image"), str):
        return None
    return "invalid_image", 'an input must be a mapping such as {"image": "data:image/png;base64,..."}'


def result(batch: EmbedBatch) -> EmbedResult:
    """Put the rows together in input order."""
    vectors = _vectors(batch)
    failures = tuple(batch.failures[n] for n in sorted(batch.failures))
    return EmbedResult(vectors, batch.usage, batch.model, failures, batch.effort)


def _vectors(batch: EmbedBatch) -> NDArray[Any]:
    if not batch.rows:
        return np.empty((len(batch.inputs), 0), dtype=np.float32)
    # What most have is right: one text's odd vector costs the others nothing.
    shape = Counter(row.shape for row in batch.rows.values()).most_common(1)[0][0]
    first = next(row for row in batch.rows.values() if row.shape == shape)
    filler = np.nan if first.dtype.kind == "f" else 0
    vectors = np.full((len(batch.inputs), first.shape[0]), filler, dtype=first.dtype)
    for n, row in batch.rows.items():
        if row.shape == first.shape:
            vectors[n] = row
            continue
        batch.failures[n] = Failure(
            n, "wrong_dimensions", f"{row.shape[0]} dimensions where others have {first.shape[0]}", attempts=1
        )
    return vectors
