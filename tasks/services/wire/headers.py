"""What a response's headers (and, failing them, its message) say of quota and delay. Pure; the clock is the caller's.

Sources: OpenAI's rate-limit guide (``x-ratelimit-*``, resets as Go durations), Azure OpenAI's quota page (bare seconds,
``retry-after-ms``), RFC 9110 section 10.2.3 (``Retry-After``), and public reports of renamed and nonsensical values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime

from penstock.workers.lanes.outcome import HeaderLimits

ABSURD_S = 366 * 86400.0  # no server means a delay of over a year; an epoch in a reset header would be one
ABSURD_COUNT = 1e15

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d)")
#: OpenAI's names, and those of gateways, which put a scope between (litellm: ``x-ratelimit-api_key-limit-requests``).
_LIMIT_HEADER = re.compile(
    r"x-rate-?limit-(?:(?P<scope>[a-z0-9_]+)-)?(?P<what>limit|remaining|reset)-(?P<kind>requests|tokens)"
)
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_SPOKEN = re.compile(
    r"\b(?:try(?:ing)? again|retry(?:ing)?|wait) (?:your request )?(?:in |after |for |at least )?"
    r"(\d+(?:\.\d+)?) ?(milliseconds?|msecs?|seconds?|secs?|minutes?|mins?|hours?|days?)\b",
    re.IGNORECASE,
)
_COMPACT = re.compile(
    r"\b(?:try again|retry|wait) (?:in |after |for )?((?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+)(?![a-z0-9])", re.IGNORECASE
)
_SPOKEN_UNITS = {"mil": 1e-3, "mse": 1e-3, "sec": 1.0, "min": 60.0, "hou": 3600.0, "day": 86400.0}


def go_duration(text: str) -> float | None:
    """Seconds of a Go ``time.Duration`` such as ``6m0s``, ``12ms`` or ``1h2m3.5s``; None if it is no such thing."""
    text = text.strip()
    total, at = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != at:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return total if at and at == len(text) else None


def seconds(text: str | None) -> float | None:
    """Seconds of a reset header: a Go duration (OpenAI) or a bare number (Azure). None for nonsense, 0 and less."""
    if text is None:
        return None
    number = _number(text)
    return _sane(go_duration(text) if number is None else number)


def limits(headers: Mapping[str, str]) -> HeaderLimits:
    """Read ``x-ratelimit-*`` and ``x-rate-limit-*``, a gateway's scopes among them. Names are lower case.

    A limit of 0 or less says nothing, nor does what is said to remain of it; a negative remainder is none either.
    """
    scopes: dict[str, dict[str, dict[str, str]]] = {"requests": {}, "tokens": {}}
    for name, value in headers.items():
        if match := _LIMIT_HEADER.fullmatch(name):
            scopes[match["kind"]].setdefault(match["scope"] or "", {}).setdefault(match["what"], value)
    requests, tokens = _tightest(scopes["requests"]), _tightest(scopes["tokens"])
    return HeaderLimits(requests[0], tokens[0], requests[1], tokens[1], requests[2], tokens[2])


def delay(headers: Mapping[str, str], message: str = "", now: float | None = None) -> float | None:
    """How long the server asks to wait, in seconds; None where it does not say, or says 0 or nonsense.

    The first valid of: ``retry-after-ms``, ``x-ms-retry-after-ms``, ``Retry-After`` (seconds or a date), the message
    ("try again in 976ms", "retry after 5 seconds"), the reset headers. The message goes before the resets since it
    speaks of this request, where a reset is the time until the whole bucket is full again.

    Args:
        headers: lower-case names.
        message: the provider's words.
        now: UNIX seconds, for a ``Retry-After`` date when the answer has no ``Date`` of its own.
    """
    sources = (
        _milliseconds(headers.get("retry-after-ms")),
        _milliseconds(headers.get("x-ms-retry-after-ms")),
        _retry_after(headers, now),
        delay_in_message(message),
        _reset(headers, message),
    )
    return next((value for value in sources if value is not None), None)


def delay_in_message(message: str) -> float | None:
    """Seconds in "try again in 976ms", "retry after 5 seconds" and their like; None if there is no such phrase."""
    message = " ".join(message.split())
    if spoken := _SPOKEN.search(message):
        return _sane(float(spoken[1]) * _SPOKEN_UNITS[spoken[2].lower()[:3]])
    if compact := _COMPACT.search(message):
        return _sane(go_duration(compact[1].lower()))
    return None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """``x-should-retry``, which overrides every rule about statuses; None if it was not sent."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _number(text: str) -> float | None:
    """A plain non-negative decimal (``float`` would take ``nan``, ``1_0`` and ``infinity`` too)."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) and text.isascii() else None


def _sane(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and 0 < value <= ABSURD_S else None


def _milliseconds(text: str | None) -> float | None:
    number = None if text is None else _number(text)
    return None if number is None else _sane(number / 1000)


def _retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    text = headers.get("retry-after")
    if text is None:
        return None
    if (number := seconds(text)) is not None:
        return number
    then = _http_date(text)
    # The answer's own Date is the better clock: the two machines need not agree.
    sent = _http_date(headers.get("date", ""))
    start = now if sent is None else sent
    return None if then is None or start is None else _sane(then - start)


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def _count(text: str | None) -> float | None:
    number = None if text is None else _number(text)
    return number if number is not None and number <= ABSURD_COUNT else None


def _tightest(scopes: Mapping[str, Mapping[str, str]]) -> tuple[float | None, float | None, float | None]:
    """Limit, remaining and reset, where a gateway states several (a key's, a team's, a model's): of the scope of which
    least remains."""
    return min(map(_scope, scopes.values()), key=_tightness, default=(None, None, None))


def _scope(stated: Mapping[str, str]) -> tuple[float | None, float | None, float | None]:
    limit = _count(stated.get("limit")) or None
    remaining = None if "limit" in stated and limit is None else _count(stated.get("remaining"))
    return limit, remaining, seconds(stated.get("reset"))


def _tightness(scope: tuple[float | None, float | None, float | None]) -> tuple[float, float]:
    limit, remaining, _ = scope
    return (math.inf if remaining is None else remaining, math.inf if limit is None else limit)


def _reset(headers: Mapping[str, str], message: str) -> float | None:
    """The reset of the limit that was hit: the one that is named or used up; if neither shows, the shorter."""
    stated = limits(headers)
    resets = {"request": stated.reset_requests_s, "token": stated.reset_tokens_s}
    remaining = {"request": stated.remaining_requests, "token": stated.remaining_tokens}
    words = message.lower()
    named = [kind for kind in resets if f"{kind}s per" in words or f"{kind} rate limit" in words]
    spent = [kind for kind in resets if remaining[kind] == 0]
    for kinds in (named, spent):
        if values := _given(resets[kind] for kind in kinds):
            return max(values)
    return min(_given(resets.values()), default=None)


def _given(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
