"""What came of one attempt: the common tongue of the services (which say it) and the lanes (which act on it)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OutcomeKind(StrEnum):
    """The kinds of outcome. A service maps its statuses and codes to these, and knows nothing of what follows."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"  # 429 for pace or capacity: it will pass
    QUOTA_EXHAUSTED = "quota_exhausted"  # 429 and kin that wait for a human: billing, spend limits
    UNAUTHORIZED = "unauthorized"  # 401, 403
    NOT_FOUND = "not_found"  # unknown deployment, model or path
    TOO_LARGE = "too_large"  # the request as a whole: tokens or count of inputs, 413
    INPUT_REFUSED = "input_refused"  # one or more inputs: too long, filtered, invalid
    REQUEST_REFUSED = "request_refused"  # the request's shape or parameters, whatever its inputs
    SERVER_ERROR = "server_error"  # 5xx, 408, 409, 424
    NOT_SENT = "not_sent"  # the connection was refused or never made: nothing was billed
    NO_ANSWER = "no_answer"  # reset, stall or time-out after sending: may have been billed
    MALFORMED = "malformed"  # 2xx whose body is not what was asked; was billed


@dataclass(frozen=True)
class HeaderLimits:
    """What a response's headers say of the quota. None where they are silent or make no sense.

    ``limit_*`` and ``remaining_*`` are counts per the provider's window (a minute); ``reset_*_s`` are seconds.
    """

    limit_requests: float | None = None
    limit_tokens: float | None = None
    remaining_requests: float | None = None
    remaining_tokens: float | None = None
    reset_requests_s: float | None = None
    reset_tokens_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    Args:
        kind: which of them.
        code: stable snake_case code of a dead letter (``content_filter``, ``input_too_long``, ``invalid_api_key`` ...).
        message: the provider's words, shortened, without secrets.
        status: the HTTP status; None when there was no answer.
        delay_s: how long the server asks to wait, in seconds; None where it does not say.
        limits: from the headers.
        should_retry: ``x-should-retry``, if it was sent.
        max_inputs: the count of inputs the server allows ("max number of inputs is N"), where it said so.
        input_index: the one input at fault, where the server named it.
        billed: whether the provider may have charged for it.
    """

    kind: OutcomeKind
    code: str = ""
    message: str = ""
    status: int | None = None
    delay_s: float | None = None
    limits: HeaderLimits = HeaderLimits()
    should_retry: bool | None = None
    max_inputs: int | None = None
    input_index: int | None = None

    @property
    def billed(self) -> bool:
        """Whether the provider may have charged for the attempt without our having an answer."""
        return self.kind in (OutcomeKind.NO_ANSWER, OutcomeKind.MALFORMED)
