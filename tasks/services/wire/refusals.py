"""Names a refusal: status, headers and error body to an ``Outcome``. The body is asked before the status.

A status is a coarse thing: 429 may mean "in a second" or "when someone pays", 500 may be a text that will never fit.
The tables are shared by the services that speak OpenAI's and Azure's dialects; Bedrock and Cohere name more of
their own.

Sources: OpenAI's error codes page and "Rate limit best practices" (codes of the 429 family), Azure OpenAI's content
filter page, the vendors' OpenAPI files, and the wordings of llama.cpp, vLLM, Ollama and text-embeddings-inference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from penstock.tasks.services.base import Response
from penstock.tasks.services.wire import headers as read
from penstock.tasks.services.wire.errors import ErrorBody, clean, read_error, snake
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

FILTERED = {
    "content_filter", "content_policy_violation", "responsible_aipolicy_violation", "responsible_ai_policy_violation",
    "content_filtered", "moderation_blocked",
}  # fmt: skip
TERMINAL = {
    "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
    "billing_not_active", "access_terminated",
}  # fmt: skip
PACE = {"rate_limit_exceeded", "slow_down", "too_many_requests", "requests", "tokens", "rate_limit_error"}
TOO_LONG = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error", "input_too_long"}
UNKNOWN_MODEL = {"model_not_found", "deployment_not_found", "unknown_model", "resource_not_found", "invalid_model"}
UNFIT = {
    "operation_not_supported", "not_supported_error", "parameter_not_supported", "unsupported_parameter",
    "invalid_api_version", "unsupported_api_version", "missing_api_version_parameter",
}  # fmt: skip
INPUTS = {"", "input", "inputs", "prompt", "messages", "texts", "inputtext", "images", "content"}
"""Parameters that carry what the caller wants done, as opposed to how."""

_TOO_LONG = re.compile(
    r"maximum context length|context.{0,10}(?:length|size|window) exceeded"
    r"|exceed\w{0,5}.{0,40}context (?:length|size|window)"
    r"|(?:is|are) too large to process|must have less than \d+ tokens|less than \d+ tokens\. given"
    r"|input length.{0,40}exceed|maximum (?:input|allowed|sequence) length|max(?:imum)?[ _]input[ _]tokens"
    r"|too many (?:input )?tokens(?!,? please wait)|input (?:text )?is too long|(?:input|prompt) (?:is )?too long"
    r"|reduce (?:your prompt|the length of the (?:input|messages|prompt))|expected maxlength|819[12] tokens",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"max(?:imum)? [\d,]+ tokens per request|request too large for|tokens per request", re.IGNORECASE
)
_MAX_INPUTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"max(?:imum)? number of inputs is (\d+)",
        r"array too long.{0,60}maximum length (\d+)",
        r"maximum allowed batch size (\d+)",
        r"batch size limit (?:is|of) (\d+)",
        r"(?:texts|inputs|images)[^.]{0,40}at most (\d+)",
        r"at most (\d+) (?:texts|inputs|images|items)",
    )
)
_INPUT_INDEX = re.compile(r"(?:\$\.)?\b(?:inputs?|texts|prompt|images)(?:\[(\d+)\]|\.(\d+)\b)")
_ABOUT_PARAMETERS = re.compile(
    r"unrecogni[sz]ed request argument|un(?:known|supported|expected) (?:parameter|argument|field|keyword)"
    r"|additional properties|extra (?:inputs|fields|parameters) (?:are )?not (?:permitted|allowed)"
    r"|(?:does not|doesn't|not) support\w{0,4} (?:specifying |the )?['\"`]?"
    r"(?:dimensions|encoding|matryoshka|embedding|stream|tool)"
    r"|must provide a model|api[- ]version|dimensions? .{0,20}must be|model (?:parameter|field) is required",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"\bmodel\b.{0,80}(?:does not exist|not found)|the api deployment .{0,60}does not exist", re.I)
_UNPAID = re.compile(r"exceeded your current quota|check your plan and billing|credit balance|billing hard limit", re.I)
_CAPACITY = re.compile(
    r"high demand|temporarily unable to process|overloaded|at capacity|no capacity|server is busy", re.I
)

_BY_STATUS = {
    400: (OutcomeKind.INPUT_REFUSED, "invalid_request"),
    401: (OutcomeKind.UNAUTHORIZED, "invalid_api_key"),
    402: (OutcomeKind.QUOTA_EXHAUSTED, "payment_required"),
    403: (OutcomeKind.UNAUTHORIZED, "forbidden"),
    404: (OutcomeKind.NOT_FOUND, "not_found"),
    408: (OutcomeKind.SERVER_ERROR, "request_timeout"),
    409: (OutcomeKind.SERVER_ERROR, "conflict"),
    410: (OutcomeKind.NOT_FOUND, "gone"),
    413: (OutcomeKind.TOO_LARGE, "request_too_large"),
    422: (OutcomeKind.INPUT_REFUSED, "unprocessable_input"),
    424: (OutcomeKind.SERVER_ERROR, "failed_dependency"),
    425: (OutcomeKind.SERVER_ERROR, "too_early"),
    429: (OutcomeKind.RATE_LIMITED, "rate_limit_exceeded"),
    499: (OutcomeKind.SERVER_ERROR, "client_closed_request"),
}
_WAITS = {OutcomeKind.RATE_LIMITED, OutcomeKind.SERVER_ERROR, OutcomeKind.QUOTA_EXHAUSTED}


@dataclass(frozen=True)
class Named:
    """An outcome kind with its code, before the message and the headers are put to it."""

    kind: OutcomeKind
    code: str
    max_inputs: int | None = None
    index: int | None = None


def refusal(response: Response, now: float | None = None, secrets: tuple[str, ...] = ()) -> Outcome:
    """Name a non-2xx answer. ``now`` is UNIX seconds, for a ``Retry-After`` date without a ``Date`` header."""
    error = read_error(response.body)
    return outcome(error, response, now, secrets)


def outcome(
    error: ErrorBody,
    response: Response,
    now: float | None = None,
    secrets: tuple[str, ...] = (),
    named: Named | None = None,
) -> Outcome:
    """Put together an outcome from an error that was read already, and perhaps ``named`` by the service itself."""
    delay = read.delay(response.headers, error.message, now)
    verdict = named or name(response.status, error, delay)
    return Outcome(
        kind=verdict.kind,
        code=verdict.code,
        message=_message(response.status, error, secrets),
        status=response.status,
        # A 400 with a Retry-After is still a 400: waiting changes nothing.
        delay_s=delay if verdict.kind in _WAITS else None,
        limits=read.limits(response.headers),
        should_retry=read.should_retry(response.headers),
        max_inputs=verdict.max_inputs,
        input_index=verdict.index,
    )


def name(status: int | None, error: ErrorBody, delay: float | None = None) -> Named:
    """The outcome of an error: by its content where that is plain, else by its status (None: an event of a stream)."""
    for rule in (_filtered, _unpaid, _too_large, _too_long, _paced, _unfit):
        if verdict := rule(status, error, delay):
            return verdict
    if status is None:
        return Named(OutcomeKind.SERVER_ERROR, _own_code(error, "server_error"))
    if status in (400, 422):
        return _invalid(status, error)
    outcome_kind, code = _BY_STATUS.get(status) or _by_class(status)
    return Named(outcome_kind, _own_code(error, code))


def _codes(error: ErrorBody) -> set[str]:
    return {snake(code) for code in (error.code, error.inner_code) if code}


def _own_code(error: ErrorBody, otherwise: str) -> str:
    """The provider's own code in our spelling, unless it says less than ours."""
    code = snake(error.code)
    return code if code and code not in {"bad_request", "unauthorized", "error", "invalid_request_error"} else otherwise


def _filtered(status: int | None, error: ErrorBody, delay: float | None) -> Named | None:
    if _codes(error) & FILTERED or snake(error.type) in FILTERED:
        return Named(OutcomeKind.INPUT_REFUSED, "content_filter", index=input_index(error))
    return None


def _unpaid(status: int | None, error: ErrorBody, delay: float | None) -> Named | None:
    """Codes first: the type is coarse, and often "insufficient_quota" for what is only pace."""
    code, kind = snake(error.code), snake(error.type)
    if code in TERMINAL:
        return Named(OutcomeKind.QUOTA_EXHAUSTED, code)
    if code in PACE or status not in (None, 402, 403, 429):
        return None
    if not code and (kind in TERMINAL or _UNPAID.search(error.message)):
        return Named(OutcomeKind.QUOTA_EXHAUSTED, kind if kind in TERMINAL else "insufficient_quota")
    # A code we do not know: those that wait for a human come without a Retry-After.
    if code and kind in TERMINAL and delay is None:
        return Named(OutcomeKind.QUOTA_EXHAUSTED, code)
    return None


def _too_large(status: int | None, error: ErrorBody, delay: float | None) -> Named | None:
    for pattern in _MAX_INPUTS:
        if match := pattern.search(error.message):
            return Named(OutcomeKind.TOO_LARGE, "too_many_inputs", max_inputs=int(match[1]) or None)
    if snake(error.code) == "max_tokens_per_request" or _TOO_LARGE.search(error.message):
        code = snake(error.code)
        return Named(OutcomeKind.TOO_LARGE, "request_too_large" if code in PACE or not code else code)
    return None


def _too_long(status: int | None, error: ErrorBody, delay: float | None) -> Named | None:
    if status in (401, 403, 404, 429):
        return None
    if _codes(error) & TOO_LONG or snake(error.type) in TOO_LONG or _TOO_LONG.search(error.message):
        return Named(OutcomeKind.INPUT_REFUSED, "input_too_long", index=input_index(error))
    return None


def _paced(status: int | None, error: ErrorBody, delay: float | None) -> Named | None:
    code = snake(error.code)
    if status in (None, 429, 503, 529) and _CAPACITY.search(error.message) and code not in PACE:
        return Named(OutcomeKind.RATE_LIMITED, "capacity")
    if status in (None, 503) and code in ("slow_down", "rate_limit_exceeded"):
        return Named(OutcomeKind.RATE_LIMITED, code)
    return None


def _unfit(status: int | None, error: ErrorBody, delay: float | None) -> Named | None:
    """The model, or what was asked of it, does not exist here."""
    codes = _codes(error)
    if status not in (401, 429) and (codes & UNKNOWN_MODEL or (status != 500 and _NO_MODEL.search(error.message))):
        return Named(OutcomeKind.NOT_FOUND, _own_code(error, "model_not_found"))
    if codes & UNFIT or snake(error.type) in UNFIT:
        return Named(OutcomeKind.REQUEST_REFUSED, _own_code(error, snake(error.type) or "not_supported"))
    return None


def _invalid(status: int, error: ErrorBody) -> Named:
    """A 400 or 422 is the input's fault, unless a parameter of the request is named."""
    root = re.split(r"[.\[]", error.param.removeprefix("$.").removeprefix("body."))[0].lower()
    outcome_kind = OutcomeKind.INPUT_REFUSED if root in INPUTS else OutcomeKind.REQUEST_REFUSED
    if root in INPUTS and _ABOUT_PARAMETERS.search(error.message):
        outcome_kind = OutcomeKind.REQUEST_REFUSED
    index = input_index(error) if outcome_kind is OutcomeKind.INPUT_REFUSED else None
    return Named(outcome_kind, _own_code(error, _BY_STATUS[status][1]), index=index)


def _by_class(status: int) -> tuple[OutcomeKind, str]:
    if status >= 500:
        return OutcomeKind.SERVER_ERROR, "server_error"
    if 300 <= status < 400:
        return OutcomeKind.REQUEST_REFUSED, "redirected"
    if 400 <= status < 500:
        return OutcomeKind.REQUEST_REFUSED, f"http_{status}"
    return OutcomeKind.MALFORMED, "unexpected_status"


def input_index(error: ErrorBody) -> int | None:
    """The input that ``$.input[3]``, ``input.3`` or the message names; None if none is."""
    match = _INPUT_INDEX.search(error.param) or _INPUT_INDEX.search(error.message)
    return int(match[1] or match[2]) if match else None


def _message(status: int | None, error: ErrorBody, secrets: tuple[str, ...]) -> str:
    text = clean(error.message, secrets)
    if not text and status is not None:
        text = f"HTTP {status} {_phrase(status)}".strip()
    notes = []
    if error.param and error.param not in text:
        notes.append(
            f"parameter {error.param}" + (f" = {clean(str(error.value), secrets)[:60]}" if error.value else "")
        )
    if error.filtered:
        notes.append("filtered: " + ", ".join(error.filtered))
    return f"{text} ({'; '.join(notes)})" if notes else text


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
