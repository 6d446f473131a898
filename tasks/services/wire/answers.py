"""The first checks of every answer: that it succeeded, is JSON, is an object and hides no error; and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from penstock.config.errors import InputInvalid
from penstock.tasks.services.base import Refused, Response
from penstock.tasks.services.wire import headers, refusals
from penstock.tasks.services.wire.errors import clean, error_of
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Usage

Refuse = Callable[[Response], Outcome]

_CERTAIN = {OutcomeKind.QUOTA_EXHAUSTED, OutcomeKind.RATE_LIMITED, OutcomeKind.TOO_LARGE, OutcomeKind.NOT_FOUND}
"""Outcomes that an error inside a 200 may have; any other such answer is malformed, and asked for again."""


def read_json(response: Response, refuse: Refuse) -> dict[str, Any]:
    """Return the JSON object of a 2xx answer.

    Args:
        response: of any status.
        refuse: the service's ``refusal``.

    Raises:
        Refused: the refusal of a non-2xx answer, or MALFORMED ``not_json``, ``not_an_object``, ``error_in_answer``.
    """
    if not 200 <= response.status < 300:
        raise Refused(refuse(response))
    document = _load(response)
    if not isinstance(document, dict):
        raise _malformed(response, "not_an_object", "The answer is JSON, but no object.")
    if document.get("error"):
        raise Refused(_error_inside(document, response))
    return document


def _load(response: Response) -> Any:
    kind = response.headers.get("content-type", "application/json").lower()
    if "json" not in kind:
        words = clean(response.body[:200].decode("utf-8", "replace"))
        raise _malformed(response, "not_json", f"The answer is {kind.split(';')[0]}, not JSON: {words[:120]}")
    try:
        return orjson.loads(response.body)
    except orjson.JSONDecodeError as exc:
        size = len(response.body)
        raise _malformed(response, "not_json", f"The answer's {size} bytes are no JSON, or are cut short.") from exc


def _malformed(response: Response, code: str, message: str) -> Refused:
    return Refused(
        Outcome(OutcomeKind.MALFORMED, code, message, status=response.status, limits=headers.limits(response.headers))
    )


def _error_inside(document: Mapping[str, Any], response: Response) -> Outcome:
    error = error_of(document)
    named = refusals.name(error.status, error)
    certain = named.kind in _CERTAIN or named.code in ("content_filter", "input_too_long")
    if not certain:
        named = refusals.Named(OutcomeKind.MALFORMED, "error_in_answer")
    return refusals.outcome(error, response, named=named)


def usage(document: Mapping[str, Any]) -> Usage:
    """Read ``usage``; what is absent, negative or no number counts as zero."""
    stated = document.get("usage")
    if not isinstance(stated, Mapping):
        return Usage(requests=1)
    prompt, completion = (_count(stated, *names) for names in (("prompt_tokens", "input_tokens"), _COMPLETION))
    return Usage(prompt, completion, _count(stated, "total_tokens") or prompt + completion, requests=1)


_COMPLETION = ("completion_tokens", "output_tokens")


def _count(stated: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = stated.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53:
            return value
    return 0


def text_of(document: Mapping[str, Any], key: str) -> str:
    """A string of the answer, empty when it is absent or something else."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def write_json(body: Mapping[str, Any]) -> bytes:
    """Write a request's body; fields that are None are left out.

    Raises:
        InputInvalid: a value cannot be written as JSON.
    """
    try:
        return orjson.dumps({key: value for key, value in body.items() if value is not None})
    except TypeError as exc:
        raise InputInvalid(f"The request cannot be written as JSON: {exc}. Pass plain values and valid text.") from exc
