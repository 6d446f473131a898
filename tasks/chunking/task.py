"""What carries out ``chunk``: one text to its chunks, by the endpoint's ``chunking_settings``.

Work for the processor: workers run it in their prefork pool, from a queue of its own. A caller who has the text in hand
may as well call ``chunk(text, endpoint_id)``, which runs here and needs the broker only to look the endpoint up.
"""

from __future__ import annotations

from typing import Any

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid, WrongTaskType
from penstock.tasks.chunking import chunk_text
from penstock.workers.runtime import runtime


def chunk(text: str, endpoint_id: str) -> list[dict[str, Any]]:
    """Carry out ``penstock.tasks.chunk``, where its arguments and errors are told."""
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
