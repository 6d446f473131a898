"""Embeddings in OpenAI's dialect, as Azure OpenAI and Azure AI Model Inference speak it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.tasks.services.base import EmbedCall, Embeddings, Refused, Response
from penstock.tasks.services.wire import answers, vectors
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

NOT_FIELDS = frozenset({"headers", "replace_newlines", "parameters"})
"""Task settings that are not fields of the request's body."""


def fields(task_settings: Mapping[str, Any], not_fields: frozenset[str] = NOT_FIELDS) -> dict[str, Any]:
    """The fields of the body that come from task settings: ``user``, those in ``parameters``, and unknown ones."""
    own = {name: value for name, value in task_settings.items() if name not in not_fields}
    return dict(task_settings.get("parameters") or {}) | own


def body(call: EmbedCall, base: Mapping[str, Any], encoding: str | None = "base64") -> dict[str, Any]:
    """Return the request's body: the inputs as a list, ``base`` (model, dimensions), and the task settings over it."""
    inputs = texts(call.inputs, bool(call.task_settings.get("replace_newlines")))
    return {"input": inputs, "encoding_format": encoding} | dict(base) | fields(call.task_settings)


def texts(inputs: Sequence[Any], replace_newlines: bool = False) -> list[Any]:
    """The inputs as they can be sent.

    Raises:
        Refused: INPUT_REFUSED ``invalid_text``, with the index of a text that no UTF-8 can write (a lone surrogate).
    """
    for index, text in enumerate(inputs):
        if isinstance(text, str) and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as exc:
                message = "The text has half of a surrogate pair, so it cannot be sent; repair its encoding."
                raise Refused(Outcome(OutcomeKind.INPUT_REFUSED, "invalid_text", message, input_index=index)) from exc
    if replace_newlines:
        return [text.replace("\n", " ") if isinstance(text, str) else text for text in inputs]
    return list(inputs)


def read(
    response: Response, call: EmbedCall, dimensions: int | None, refuse: answers.Refuse, encoding: str = "float"
) -> Embeddings:
    """Read ``data[].embedding`` into a checked array.

    Args:
        response: of any status.
        call: what was asked.
        dimensions: as asked for, None if left to the model.
        refuse: the service's ``refusal``.
        encoding: a key of ``vectors.TYPES``; for float and base64 the answer may have either.

    Raises:
        Refused: by status, or MALFORMED.
    """
    document = answers.read_json(response, refuse)
    count = len(call.inputs)
    rows = vectors.in_order(document.get("data"), count)
    wanted = fields(call.task_settings).get("dimensions") or dimensions
    array = vectors.stack(rows, count, dimensions=wanted, encoding=encoding)
    return Embeddings(array, answers.usage(document), answers.text_of(document, "model"))
