"""Images: synchronous answers (OpenAI, Azure OpenAI) and operations that are submitted, polled and deleted (Azure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson

from penstock.tasks.services.base import ImageCall, ImageOperation, Refused, Response
from penstock.tasks.services.wire import answers, headers, refusals, urls
from penstock.tasks.services.wire.embeddings import fields
from penstock.tasks.services.wire.errors import ErrorBody, clean, error_of, snake
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

_RUNNING = frozenset({"notrunning", "running"})
_FINAL = frozenset({"succeeded", "failed", "canceled", "cancelled", "deleted"})


def body(call: ImageCall, base: Mapping[str, Any]) -> dict[str, Any]:
    """The request's body: ``base`` (the model), the prompt, task settings, the call's own parameters."""
    return dict(base) | {"prompt": call.prompt} | fields(call.task_settings) | dict(call.parameters)


def read(response: Response, refuse: answers.Refuse) -> ImageOperation:
    """Read a synchronous answer. Raises Refused."""
    document = answers.read_json(response, refuse)
    return replace(_pictures(document), usage=answers.usage(document))


def read_submitted(response: Response, base: str, fallback: str, refuse: answers.Refuse) -> ImageOperation:
    """Read the answer to a submit.

    Args:
        response: of any status.
        base: the endpoint's own base URL, whose origin the operation must share.
        fallback: where operations are, with ``{id}``: for an answer that has an id and no ``operation-location``.
        refuse: the service's ``refusal``.

    Raises:
        Refused: by status; REQUEST_REFUSED ``foreign_operation_location``; MALFORMED ``no_operation``.
    """
    document = answers.read_json(response, refuse)
    identity = answers.text_of(document, "id") or None
    location = response.headers.get("operation-location")
    if location is None and identity is None:
        raise Refused(Outcome(OutcomeKind.MALFORMED, "no_operation", "The answer names no operation.", response.status))
    poll_url = own_url(base, location if location is not None else fallback.format(id=identity))
    operation = _operation(document, response, poll_url)
    return replace(operation, state="SUBMITTED") if operation.state == "RUNNING" else operation


def read_polled(response: Response, poll_url: str, refuse: answers.Refuse) -> ImageOperation:
    """Read an operation's state. An operation that failed may come with status 400, one that is gone with 404.

    Raises:
        Refused: what is no operation: MALFORMED, or by its status.
    """
    document = _document(response)
    if document is not None and (response.status < 300 or _is_operation(response.status, document)):
        return _operation(document, response, poll_url)
    if response.status in (404, 410):
        message = "The operation is not there (any more): images are kept for 24 hours. Generate them again."
        return _failed(poll_url, Outcome(OutcomeKind.REQUEST_REFUSED, "operation_not_found", message, response.status))
    answers.read_json(response, refuse)
    raise Refused(Outcome(OutcomeKind.MALFORMED, "no_operation", "The answer is no operation.", response.status))


def own_url(base: str, location: str) -> str:
    """Return ``location`` as an absolute URL of ``base``'s origin: anywhere else the key would leak.

    Raises:
        Refused: REQUEST_REFUSED ``foreign_operation_location``.
    """
    try:
        url = urljoin(base + "/", location.strip())
    except ValueError:
        url = ""
    if not _plain(url) or urls.origin(url) != urls.origin(base):
        message = (
            f"The service sent us to another server for its operation ({clean(urls.server(url))}); the key stays here."
        )
        raise Refused(Outcome(OutcomeKind.REQUEST_REFUSED, "foreign_operation_location", message))
    return url


def _plain(url: str) -> bool:
    """No characters over which two parsers of URLs might disagree."""
    return url.isascii() and url.isprintable() and not set(url) & set(" \\") and "@" not in urlsplit(url).netloc


def _document(response: Response) -> dict[str, Any] | None:
    try:
        document = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _is_operation(status: int, document: Mapping[str, Any]) -> bool:
    if _state(document) in _RUNNING | _FINAL:
        return True
    return status == 400 and "created" in document and isinstance(document.get("error"), Mapping)


def _state(document: Mapping[str, Any]) -> str:
    return answers.text_of(document, "status").lower()


def _operation(document: Mapping[str, Any], response: Response, poll_url: str) -> ImageOperation:
    state = _state(document)
    identity = answers.text_of(document, "id") or None
    if state in _RUNNING or (not state and response.status == 202):
        return ImageOperation("RUNNING", identity, poll_url, headers.delay(response.headers))
    if state == "succeeded":
        result = document.get("result")
        pictures = _pictures(result if isinstance(result, Mapping) else {})
        return replace(pictures, operation_id=identity, poll_url=poll_url)
    if state in _FINAL or document.get("error"):
        return replace(_failed(poll_url, _why(state, document, response.status)), operation_id=identity)
    message = f"The operation is in a state we do not know: {clean(state) or 'none'}."
    raise Refused(Outcome(OutcomeKind.MALFORMED, "unknown_state", message, response.status))


def _failed(poll_url: str | None, outcome: Outcome) -> ImageOperation:
    return ImageOperation("FAILED", poll_url=poll_url, outcome=outcome)


def _why(state: str, document: Mapping[str, Any], status: int) -> Outcome:
    if state in ("canceled", "cancelled"):
        message = "The service gave up the operation since it took too long; generate the images again."
        return Outcome(OutcomeKind.SERVER_ERROR, "operation_canceled", message, status)
    if state == "deleted":
        return Outcome(
            OutcomeKind.REQUEST_REFUSED, "operation_deleted", "The operation was deleted by someone.", status
        )
    error = error_of(document)
    named = refusals.name(None, error)
    if not error.code:
        named = refusals.Named(named.kind, "operation_failed") if named.code == "server_error" else named
    return replace(refusals.outcome(error, Response(status), named=named), delay_s=None)


def _pictures(document: Mapping[str, Any]) -> ImageOperation:
    """Read ``data``: images, and errors of single ones."""
    data = document.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(item, Mapping) for item in data):
        raise Refused(Outcome(OutcomeKind.MALFORMED, "missing_data", "The answer has no list of images."))
    errors = [(at, error_of(item)) for at, item in enumerate(data) if item.get("error")]
    good = [item for item in data if not item.get("error")]
    if any(not (answers.text_of(item, "url") or answers.text_of(item, "b64_json")) for item in good):
        raise Refused(
            Outcome(OutcomeKind.MALFORMED, "missing_data", "An image of the answer has neither url nor b64_json.")
        )
    if not good:
        named = refusals.name(None, errors[0][1])
        return _failed(None, refusals.outcome(errors[0][1], Response(200), named=named))
    return ImageOperation(
        "SUCCEEDED",
        urls=tuple(item["url"] for item in good if answers.text_of(item, "url")),
        b64=tuple(item["b64_json"] for item in good if not answers.text_of(item, "url")),
        revised_prompts=tuple(answers.text_of(item, "revised_prompt") or None for item in good),
        item_errors=tuple((at, *_item_error(error)) for at, error in errors),
    )


def _item_error(error: ErrorBody) -> tuple[str, str]:
    return snake(error.code) or "image_failed", clean(error.message)
