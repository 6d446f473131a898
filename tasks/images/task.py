"""The ``generate_image`` task: a prompt to images, submitted once, looked after until they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from celery import states

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid
from penstock.config.names import IMAGE_TASK, image_key
from penstock.tasks.completion.task import divide
from penstock.tasks.images.generation import Generation, ImageOptions
from penstock.tasks.images.record import OperationRecord
from penstock.tasks.images.store import store
from penstock.tasks.request.delivery import Delivery
from penstock.tasks.request.endpoints import endpoint_for
from penstock.tasks.services.base import ImageCall
from penstock.workers.app import app
from penstock.workers.pool.loop import wait
from penstock.workers.results.types import CompleteResult, ImageResult
from penstock.workers.runtime import runtime
from penstock.workers.task import LaneTask

#: Seconds after its submit at which an operation is given up.
DEADLINE_S = 600.0


class ImageTask(LaneTask):
    """A task that keeps a record of its operation until its result is stored."""

    abstract = True

    def after_return(self, status: str, retval: Any, task_id: str, *rest: Any) -> None:
        """Drop the record once the result says it all: a message delivered again is then known to be done."""
        request = self.request
        stored = not (request.called_directly or request.is_eager or request.ignore_result)
        if status == states.SUCCESS and stored:
            shared = runtime()
            wait(shared.async_client().delete(image_key(shared.settings.key_prefix, task_id)))


@app.task(name=IMAGE_TASK, base=ImageTask, bind=True)
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
    """Generate images from a prompt.

    Where the service works by operations (Azure OpenAI, api-versions of 2023) the task submits once, and looks at the
    server's pace whether the images are there; meanwhile no worker holds it, and its state is ``SUBMITTED`` or
    ``RUNNING`` with ``{"operation_id": ..., "times": ...}`` as its info. Whatever is killed, nothing is submitted
    twice.

    Args:
        prompt: a text, or a completion's result, whose text it takes. Data first, so that canvas composes.
        endpoint_id: the inference endpoint's id.
        n, size: number of images, and their size such as ``"512x512"``; the service's own defaults where not given.
        out: a folder on the worker's machine (absolute), or a URL such as ``s3://bucket/folder`` (by fsspec), where
            the images are kept: ``r.files``. Without it they stay where the service put them.
        delete: delete the operation and its images at the service, once all are kept.
        deadline_s: seconds after the submit at which it is given up.
        **overrides: task settings for this call, and any of the vendor's parameters: ``quality``, ``style`` ...

    Raises:
        EndpointNotFound, WrongTaskType, InputInvalid: nothing was sent.
        InferenceFailed: the service's final "no", or ``deadline_exceeded``, or ``submit_unknown``: the submit may have
            reached the service, or not, and is not made again without your asking.
        LaneParked: the service refuses all work until somebody acts.
    """
    given = {**overrides, **{name: value for name, value in (("n", n), ("size", size)) if value is not None}}
    return wait(_generate(self, prompt, endpoint_id, given, (out, delete, deadline_s)))


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
    if isinstance(prompt, CompleteResult):
        prompt = prompt.text
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputInvalid(f"[prompt] must be a text that is not empty; got {type(prompt).__name__}")
    settings, parameters = divide(endpoint, given)
    return ImageCall(prompt, settings, parameters)
