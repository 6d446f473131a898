"""Every "no" of the stand-in, in OpenAI's words; the dialects of other vendors reword them by ``kind``. Pure.

Sources: OpenAI's help pages on error codes and rate limits, and answers quoted in public issue threads.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from penstock.stand_in.headers import spoken_delay
from penstock.stand_in.limits import Refusal


@dataclass(frozen=True)
class No:
    """What is wrong.

    Args:
        kind: ``rate``, ``concurrency``, ``billing``, ``slow_down``, ``unauthorized``, ``forbidden``, ``not_found``,
            ``content_filter``, ``too_long``, ``max_inputs``, ``max_request_tokens``, ``invalid``, ``unsupported``,
            ``server_error``.
        status: the HTTP status.
        message, type, code, param: as in OpenAI's error object.
        wait_s: seconds after which the request would pass, for a rate limit.
        limit: which limit, for a rate limit: ``requests`` or ``tokens``.
        value: the value at fault, for a parameter.
    """

    kind: str
    status: int
    message: str
    type: str | None = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    wait_s: float | None = None
    limit: str = "requests"
    value: Any = None


class RequestRefused(Exception):
    """Carries a ``No`` from wherever it is found to the dialect that puts it into bytes."""

    def __init__(self, no: No) -> None:
        super().__init__(no.message)
        self.no = no


def with_delay(no: No, ways: Collection[str]) -> No:
    """Add the delay to the message, where ``message`` is one of the ways of saying it."""
    if no.wait_s is None or "message" not in ways:
        return no
    return replace(no, message=f"{no.message} Please try again in {spoken_delay(no.wait_s)}.")


def rate(refusal: Refusal, model: str) -> RequestRefused:
    """A limit of requests or tokens a minute is used up."""
    words = "requests per min (RPM)" if refusal.kind == "requests" else "tokens per min (TPM)"
    message = (
        f"Rate limit reached for {model} in organization org-stand-in on {words}: Limit {refusal.per_minute:.0f}, "
        f"Used {refusal.used:.0f}, Requested {refusal.requested:.0f}."
    )
    no = No("rate", 429, message, refusal.kind, "rate_limit_exceeded", wait_s=refusal.wait_s, limit=refusal.kind)
    return RequestRefused(no)


def cool_down(model: str, left_s: float) -> RequestRefused:
    """The stand-in was configured to refuse everything for a while."""
    message = f"Rate limit reached for {model} in organization org-stand-in on requests per min (RPM)."
    return RequestRefused(No("rate", 429, message, "requests", "rate_limit_exceeded", wait_s=left_s))


def concurrency(limit: int) -> RequestRefused:
    """Too many requests are in flight."""
    message = f"Too many concurrent requests: at most {limit} may be in flight."
    return RequestRefused(No("concurrency", 429, message, "requests", "rate_limit_exceeded", wait_s=1.0))


def billing(code: str) -> RequestRefused:
    """A 429 that no waiting helps."""
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return RequestRefused(No("billing", 429, message, "insufficient_quota", code))


def slow_down() -> RequestRefused:
    """The rate has grown too fast."""
    return RequestRefused(No("slow_down", 429, "Slow down: your request rate grew too fast.", "requests", "slow_down"))


def unauthorized() -> RequestRefused:
    """The key is wrong or missing. The key itself is never shown."""
    message = "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
    return RequestRefused(No("unauthorized", 401, message, code="invalid_api_key"))


def forbidden() -> RequestRefused:
    """The key may not do this."""
    message = "You are not allowed to use this model or this endpoint."
    return RequestRefused(No("forbidden", 403, message, "permission_error", "insufficient_permissions"))


def not_found(model: str) -> RequestRefused:
    """The model or deployment does not exist."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return RequestRefused(No("not_found", 404, message, code="model_not_found"))


def content_filter(param: str = "input", position: int | None = None) -> RequestRefused:
    """The content filter has stopped the input."""
    place = param if position is None else f"{param}[{position}]"
    message = (
        "The response was filtered due to the prompt triggering the content management policy. "
        "Please modify your prompt and retry."
    )
    return RequestRefused(No("content_filter", 400, message, code="content_filter", param=place))


def too_long(limit: int, tokens: int, param: str = "input", position: int | None = None) -> RequestRefused:
    """One input, or a prompt with the answer it asks for, is longer than the model takes."""
    if position is not None:
        place = f"{param}[{position}]"
        message = f"Invalid '{place}': maximum input length is {limit} tokens."
        return RequestRefused(No("too_long", 400, message, param=place))
    message = (
        f"This model's maximum context length is {limit} tokens, however you requested {tokens} tokens. "
        "Please reduce your prompt; or completion length."
    )
    return RequestRefused(No("too_long", 400, message, code="context_length_exceeded", param=param))


def max_inputs(limit: int) -> RequestRefused:
    """Too many inputs in one request."""
    return RequestRefused(No("max_inputs", 400, f"Too many inputs. The max number of inputs is {limit}.", value=limit))


def max_request_tokens(limit: int, tokens: int) -> RequestRefused:
    """Too many tokens in one request."""
    message = f"Requested {tokens} tokens, max {limit} tokens per request"
    kind = "max_tokens_per_request"
    return RequestRefused(No("max_request_tokens", 400, message, kind, kind))


def invalid(message: str, param: str | None = None, code: str | None = None, value: Any = None) -> RequestRefused:
    """The request breaks the rules of its format."""
    return RequestRefused(No("invalid", 400, message, code=code, param=param, value=value))


def unsupported(param: str, value: Any) -> RequestRefused:
    """The model does not take this parameter."""
    message = f"Unsupported parameter: '{param}' is not supported with this model."
    return RequestRefused(No("unsupported", 400, message, code="unsupported_parameter", param=param, value=value))


def status(number: int) -> RequestRefused:
    """A bare status, injected."""
    if number == 429:
        return RequestRefused(No("rate", 429, "Rate limit reached.", "requests", "rate_limit_exceeded", wait_s=1.0))
    if number < 500:
        return RequestRefused(No("invalid", number, f"The request failed with status {number}."))
    message = "The server had an error while processing your request. Sorry about that!"
    if number in (503, 529):
        message = "The engine is currently overloaded, please try again later."
    return RequestRefused(No("server_error", number, message, "server_error"))
