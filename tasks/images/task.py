"""What carries out ``generate_image``: a prompt to images, submitted once, looked after until they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from celery import states

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid
from penstock.config.names import image_key
from penstock.tasks.completion.task import divide
from penstock.tasks.declarations import DEADLINE_S
from penstock.tasks.images.generation import Generation, ImageOptions
from penstock.tasks.images.record import OperationRecord
from penstock.tasks.images.store import store
from penstock.tasks.request.delivery import Delivery
from penstock.tasks.request.endpoints import endpoint_for
from penstock.tasks.services.base import ImageCall
from penstock.workers.pool.loop import wait
from penstock.workers.results.mapping import text_of
from penstock.workers.results.types import ImageResult
from penstock.workers.runtime import runtime


def generate_image(
    self: Any,
    prompt: Any,
    endpoint_id: str,
    n: int | None = None,
    size: str | None = None,
    out: str | None = None,
    delete: bool = False,
    deadline_s: float = DEADLINE_S,
    **overrides: Any,
) -> ImageResult:
    """Carry out ``penstock.tasks.generate_image``, where its arguments and errors are told."""
    given = {**overrides, **{name: value for name, value in (("n", n), ("size", size)) if value is not None}}
    return wait(_generate(self, prompt, endpoint_id, given, (out, delete, deadline_s)))


def drop_record(self: Any, status: str, retval: Any, task_id: str, *rest: Any) -> None:
    """Drop an operation's record once the result says it all: a message delivered again is then known to be done."""
    request = self.request
    stored = not (request.called_directly or request.is_eager or request.ignore_result)
    if status == states.SUCCESS and stored:
        shared = runtime()
        wait(shared.async_client().delete(image_key(shared.settings.key_prefix, task_id)))


async def _generate(
    task: Any, prompt: Any, endpoint_id: str, given: Mapping[str, Any], options: tuple[str | None, bool, float]
) -> ImageResult:
    shared = runtime()
    delivery = Delivery(shared, task.request)
    endpoint = await endpoint_for("generate_image", (TaskType.IMAGE_GENERATION,), endpoint_id, shared)
    call = prepare(endpoint, prompt, given)
    out, delete, deadline_s = options
    if not isinstance(deadline_s, int | float) or not 0 < deadline_s <= 86_400:
        raise InputInvalid(f"[deadline_s] must be seconds, more than 0 and at most 86400; got {deadline_s!r}")
    if delete and not out:
        raise InputInvalid("[delete] needs [out]: else nobody would ever have the images")
    where = store(out, relative=delivery.direct) if out else None
    generation = Generation(shared, endpoint, delivery, call, ImageOptions(where, delete, deadline_s))
    return await generation.run(_announcer(task, delivery))


def _announcer(task: Any, delivery: Delivery) -> Any:
    """Return what stores an operation's state in the result back end."""

    async def announce(state: str, operation: OperationRecord) -> None:
        if not delivery.direct:
            meta = {"operation_id": operation.operation_id, "times": operation.times, "polls": operation.polls}
            # Celery's call blocks, and this is a coroutine on the loop: no task's body, which the back end would see.
            await asyncio.to_thread(task.update_state, state=state, meta=meta)

    return announce


def prepare(endpoint: Endpoint, prompt: Any, given: Mapping[str, Any]) -> ImageCall:
    """Return what is asked of the service.

    Raises:
        InputInvalid: the prompt is no text.
    """
    prompt = text_of(prompt)
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputInvalid(f"[prompt] must be a text that is not empty; got {type(prompt).__name__}")
    settings, parameters = divide(endpoint, given)
    return ImageCall(prompt, settings, parameters)
