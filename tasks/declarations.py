"""The tasks as their callers see them: names, arguments, what comes back. What carries them out is in their folders.

A worker imports that as it starts. Who only sends tasks never does: it needs neither HTTP nor a provider's formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.config.names import CHUNK_TASK, COMPLETE_TASK, EMBED_TASK, IMAGE_TASK
from penstock.workers.app import app
from penstock.workers.results.types import CompleteResult, EmbedResult, ImageResult
from penstock.workers.task import LaneTask

#: Seconds after its submit at which an operation for images is given up.
DEADLINE_S = 600.0
# Celery writes so much of a result into its log and events: enough for the first offsets, too little for any text.
_SHOWN = 20


@app.task(
    name=CHUNK_TASK,
    base=LaneTask,
    blocking=True,
    resultrepr_maxsize=_SHOWN,
    carried_out_by="penstock.tasks.chunking.task:chunk",
)
def chunk(text: str, endpoint_id: str) -> list[dict[str, Any]]:
    """Split a text by an endpoint's chunking settings.

    Args:
        text: one text, of any length.
        endpoint_id: the id of a ``text_embedding`` endpoint.

    Returns:
        ``[{"start": 0, "end": 1204, "text": "..."}, ...]`` in order, at least one; offsets in characters. It is plain
        JSON and what ``embed`` takes: ``chain(chunk.s(text, "docs"), embed.s("docs"))``.

    Raises:
        EndpointNotFound: no endpoint has this id.
        WrongTaskType: the endpoint does not embed texts.
        InputInvalid: ``text`` is no string.
    """
    raise NotImplementedError


@app.task(name=COMPLETE_TASK, base=LaneTask, bind=True, carried_out_by="penstock.tasks.completion.task:complete")
def complete(
    self: Any, prompt_or_messages: Any, endpoint_id: str, stream: bool | None = None, **overrides: Any
) -> CompleteResult:
    """Complete a prompt, or continue a conversation, through an endpoint's lane.

    Args:
        prompt_or_messages: a text; a list of messages (``{"role": "user", "content": "..."}``); a list of prompts, for
            the legacy completions API; or another completion's result, whose text it takes. Data first, so that canvas
            composes.
        endpoint_id: the inference endpoint's id.
        stream: whether the answer is published as it comes, for ``penstock.tasks.stream``. By default those of
            ``chat_completion`` endpoints are; a direct call publishes nothing.
        **overrides: task settings for this call, and any of the vendor's parameters: ``n``, ``stop``, ``max_tokens``,
            ``temperature``, ``tools``, ``response_format`` ...

    Returns:
        The choices with their texts, finish reasons (``content_filter`` too is a result) and tool calls; usage; model.
        The same with and without streaming.

    Raises:
        EndpointNotFound, WrongTaskType, InputInvalid: nothing was sent.
        CutStream: a streamed answer broke off; ``partial`` is the text that had come. It is not tried again.
        InferenceFailed: the service's final "no".
        LaneParked: the service refuses all work until somebody acts.
    """
    raise NotImplementedError


@app.task(name=EMBED_TASK, base=LaneTask, bind=True, carried_out_by="penstock.tasks.embedding.task:embed")
def embed(self: Any, texts: Sequence[Any], endpoint_id: str, **overrides: Any) -> EmbedResult:
    """Embed texts through an endpoint's lane.

    Args:
        texts: strings, the chunks that ``chunk`` returns (mappings with ``text``), or a completion, or several,
            whose texts are taken; for an ``image_embedding``
            endpoint mappings with ``image`` (a data URL) and perhaps ``text``. Data first, so that canvas composes.
        endpoint_id: the inference endpoint's id.
        **overrides: ``input_type`` (``search``, ``ingest``, ``classification``, ``clustering``) and task settings for
            this call.

    Returns:
        Vectors ``(n, d)`` float32 in input order, usage, model, and a typed failure for each input without a vector.

    Raises:
        EndpointNotFound, WrongTaskType, InputInvalid: nothing was sent.
        LaneParked: the service refuses all work until somebody acts.
    """
    raise NotImplementedError


@app.task(
    name=IMAGE_TASK,
    base=LaneTask,
    bind=True,
    carried_out_by="penstock.tasks.images.task:generate_image",
    returned_to="penstock.tasks.images.task:drop_record",
)
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
    raise NotImplementedError
