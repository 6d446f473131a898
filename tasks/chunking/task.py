"""The ``chunk`` task: one text to its chunks, by the endpoint's ``chunking_settings``.

Work for the processor: workers run it in their prefork pool, from a queue of its own. A caller who has the text in hand
may as well call ``chunk(text, endpoint_id)``, which runs here and needs the broker only to look the endpoint up.
"""

from __future__ import annotations

from typing import Any

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid, WrongTaskType
from penstock.config.names import CHUNK_TASK
from penstock.tasks.chunking import chunk_text
from penstock.workers.app import app
from penstock.workers.runtime import runtime
from penstock.workers.task import LaneTask

# Celery writes so much of a result into its log and events: enough for the first offsets, too little for any text.
_SHOWN = 20


@app.task(name=CHUNK_TASK, base=LaneTask, blocking=True, resultrepr_maxsize=_SHOWN)
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
    if not isinstance(text, str):
        raise InputInvalid(
            f"[text] must be a string, not {type(text).__name__}: chunk one text per call, several with "
            "celery.group(chunk.s(text, endpoint_id) for text in texts)"
        )
    return split(text, runtime().endpoints.get(endpoint_id))


def split(text: str, endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return what ``chunk`` returns, for an endpoint that was looked up already. Errors as for ``chunk``."""
    if endpoint.task_type is not TaskType.TEXT_EMBEDDING:
        raise WrongTaskType(
            f"[{endpoint.inference_id}] is a {endpoint.task_type} endpoint: only those of type "
            f"{TaskType.TEXT_EMBEDDING} have chunking settings; see `penstock endpoint list`"
        )
    spans = chunk_text(text, endpoint.chunking_settings)
    return [{"start": start, "end": end, "text": text[start:end]} for start, end in spans]
