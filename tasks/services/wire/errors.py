"""Reads the error out of an answer, whatever envelope the server uses. What it means is decided in ``refusals``.

Envelopes met: OpenAI's and Azure OpenAI's nested ``{"error": {...}}``; Azure AI's, Bedrock's, Cohere's and vLLM's flat
one; ``error`` as a string (Ollama, text-embeddings-inference); FastAPI's ``detail`` as text or list; a list around the
whole (Google); HTML pages and plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

LONGEST_MESSAGE = 300
_LONGEST_READ = 4000  # some servers repeat the whole input; the patterns need not see it

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_STATUS = re.compile(r"[45]\d\d$")
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_KEYS = (
    # What OpenAI repeats of a key is masked already, but others copy its words and not its care.
    (re.compile(r"(incorrect api key provided:?\s*)\S+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (
        re.compile(
            r"\b((?:api|access|secret|subscription)[-_ ]?key|token|sig|signature|password)(\s*[=:]\s*)[^\s,;&]{4,}",
            re.IGNORECASE,
        ),
        r"\1\2***",
    ),
    (re.compile(r"\b(?:sk|pk|rk|sess|gsk|hf|xai)[-_][\w*.-]{6,}"), "***"),
    (re.compile(r"\b(?:AKIA|ASIA|ABSK)[A-Za-z0-9+/=]{8,}"), "***"),
    (re.compile(r"\beyJ[\w-]+(?:\.[\w-]+)*"), "***"),
    # A long run of letters and digits with both in it: a key of Azure's, a signature.
    (re.compile(r"(?<![\w/.+-])(?=[A-Za-z+/=_-]*\d)(?=[\d+/=_-]*[A-Za-z])[A-Za-z0-9+/=_]{32,}(?![\w/.+-])"), "***"),
)


@dataclass(frozen=True)
class ErrorBody:
    """What an answer says of its error.

    Args:
        message: for people; not yet scrubbed.
        code, type, param: as sent, empty where absent; a code that only repeats the status is absent.
        inner_code: of ``innererror`` or ``inner_error``.
        filtered: the categories of a content filter that fired.
        value: the offending value (Azure AI: ``detail.input`` or ``detail.value``).
        status: an HTTP status inside the body, where the code or ``status`` is one.
    """

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""
    inner_code: str = ""
    filtered: tuple[str, ...] = ()
    value: Any = None
    status: int | None = None


def snake(code: str) -> str:
    """``DeploymentNotFound`` to ``deployment_not_found``: the spelling of our stable codes."""
    return _NOT_WORD.sub("_", _CAMEL.sub("_", code).lower()).strip("_")[:64]


def clean(message: str, secrets: Iterable[str] = ()) -> str:
    """One short line without keys: those given, and whatever looks like one."""
    for secret in secrets:
        if len(secret) >= 4:
            message = message.replace(secret, "***")
    message = " ".join(message[: 8 * LONGEST_MESSAGE].split())
    for pattern, mask in _KEYS:
        message = pattern.sub(mask, message)
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def read_error(body: bytes) -> ErrorBody:
    """Read any error body; what cannot be read as JSON is its own message."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ErrorBody(message=_plain(body))
    return error_of(document)


def error_of(document: Any) -> ErrorBody:
    """Read the error in a decoded document (an answer, an event of a stream, an operation)."""
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, Mapping):
        return ErrorBody(message=_text(document)[:_LONGEST_READ])
    error = document.get("error")
    if isinstance(error, Mapping):
        return _from_mapping(error)
    flat = _from_mapping(document)
    if isinstance(error, str) and error:
        # Some put the words into "error", others a kind and the words into "message".
        code = flat.code or (error if flat.message and " " not in error else "")
        return replace(flat, message=flat.message or error[:_LONGEST_READ], code=code)
    return flat


def _from_mapping(error: Mapping[str, Any]) -> ErrorBody:
    detail = error.get("detail", error.get("details"))
    where, value = _location(detail)
    inner = error.get("innererror") or error.get("inner_error")
    inner = inner if isinstance(inner, Mapping) else {}
    return ErrorBody(
        message=_words(error)[:_LONGEST_READ] or _words_of(detail)[:_LONGEST_READ],
        code=_code(error.get("code")),
        type=_text(error.get("type")) or _text(error.get("error_type")),
        param=_text(error.get("param")) or where,
        inner_code=_text(inner.get("code")),
        filtered=filtered_categories(inner) or filtered_categories(error),
        value=value,
        status=_status(error.get("code")) or _status(error.get("status")),
    )


def _words(error: Mapping[str, Any]) -> str:
    return next(filter(None, (_text(error.get(key)) for key in ("message", "Message", "error_description"))), "")


def filtered_categories(holder: Mapping[str, Any]) -> tuple[str, ...]:
    """Categories that a content filter found, from either spelling of its results."""
    results = holder.get("content_filter_result") or holder.get("content_filter_results")
    if not isinstance(results, Mapping):
        return ()
    return tuple(
        sorted(name for name, found in results.items() if isinstance(found, Mapping) and found.get("filtered"))
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _code(value: Any) -> str:
    """A code in words. Integers and "429" only repeat the status."""
    text = _text(value)
    return "" if text.isdigit() else text


def _status(value: Any) -> int | None:
    return int(value) if isinstance(value, int | str) and _STATUS.match(str(value)) else None


def _location(detail: Any) -> tuple[str, Any]:
    """The parameter that ``detail`` names, and its value (``loc`` starts with "body")."""
    first = detail[0] if isinstance(detail, list) and detail else detail
    if not isinstance(first, Mapping):
        return "", None
    loc = first.get("loc")
    parts = [str(part) for part in loc if part != "body"] if isinstance(loc, list) else []
    return ".".join(parts), first.get("input", first.get("value"))


def _words_of(detail: Any) -> str:
    if isinstance(detail, list):
        return "; ".join(filter(None, (_words_of(item) for item in detail[:3])))
    if isinstance(detail, Mapping):
        return _text(detail.get("msg")) or _text(detail.get("message"))
    return _text(detail)


def _plain(body: bytes) -> str:
    text = body[:_LONGEST_READ].decode("utf-8", "replace").strip()
    if text[:1] != "<":
        return text
    title = _TITLE.search(text)
    return f"an HTML page instead of JSON: {title[2] if title else 'no title'}"
