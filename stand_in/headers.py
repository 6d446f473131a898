"""What vendors say of a quota in their headers, and how they say when to come back. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from email.utils import formatdate

from penstock.stand_in.limits import Gauge

STYLES = ("auto", "openai", "azure", "azure-reset", "none", "nonsense")
WAYS = ("header", "ms", "date", "message", "none")

_NONSENSE = ("-1", "0", "1e400", "soon", "", "999999999999999999999", "-5s", "NaN")


def go_duration(seconds: float) -> str:
    """Write a duration as Go's ``time.Duration`` prints it: ``6m0s``, ``1s``, ``12ms``, ``8.64s``, ``1h2m3.5s``.

    OpenAI's ``x-ratelimit-reset-*`` are such strings. Rounded up to a millisecond.
    """
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def style_of(style: str, vendor: str) -> str:
    """Return the style that ``auto`` means for a vendor: its own, which for most is none."""
    if style != "auto":
        return style
    return vendor if vendor in ("openai", "azure") else "none"


def quota_headers(style: str, gauges: Mapping[str, Gauge], refused: bool, number: int) -> dict[str, str]:
    """Return the rate-limit headers of one answer.

    Args:
        style: ``openai`` (limit, remaining, reset as Go durations, of a minute), ``azure`` (remaining of the window
            only; bare seconds of reset with a 429), ``azure-reset`` (as seen once in the wild: only
            ``x-rate-limit-reset-tokens`` with a 429), ``none``, or ``nonsense`` (-1, 0, absurd, empty).
        gauges: by ``requests`` and ``tokens``.
        refused: whether the answer is a 429.
        number: the request's number, which picks the nonsense.
    """
    if style == "openai":
        return _openai(gauges)
    if style == "azure":
        return _azure(gauges, refused)
    if style == "azure-reset" and refused:
        return {f"x-rate-limit-reset-{kind}": str(math.ceil(gauge.reset_s)) for kind, gauge in gauges.items()}
    return _nonsense(number) if style == "nonsense" else {}


def _openai(gauges: Mapping[str, Gauge]) -> dict[str, str]:
    headers = {}
    for kind, gauge in gauges.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(math.floor(gauge.per_minute))
        headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, math.floor(gauge.per_minute - gauge.used)))
        headers[f"x-ratelimit-reset-{kind}"] = go_duration(gauge.reset_s)
    return headers


def _azure(gauges: Mapping[str, Gauge], refused: bool) -> dict[str, str]:
    headers = {}
    for kind, gauge in gauges.items():
        headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, math.floor(gauge.capacity - gauge.used)))
        if refused:
            headers[f"x-ratelimit-reset-{kind}"] = str(math.ceil(gauge.reset_s))
    return headers


def _nonsense(number: int) -> dict[str, str]:
    names = [
        f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")
    ]
    return {name: _NONSENSE[(number + place) % len(_NONSENSE)] for place, name in enumerate(names)}


def retry_headers(ways: Collection[str], wait_s: float, unix_s: float) -> dict[str, str]:
    """Return the headers that ask to wait ``wait_s``: ``retry-after`` (whole seconds or a date), ``retry-after-ms``.

    ``unix_s`` is the present, for the date.
    """
    headers = {}
    if "ms" in ways:
        headers["retry-after-ms"] = str(max(1, math.ceil(wait_s * 1000)))
    if "header" in ways:
        headers["retry-after"] = str(max(1, math.ceil(wait_s)))
    elif "date" in ways:
        headers["retry-after"] = formatdate(math.ceil(unix_s + max(1.0, wait_s)), usegmt=True)
    return headers


def spoken_delay(wait_s: float) -> str:
    """Return a delay as OpenAI's messages put it: ``976ms``, ``1.5s``, ``6m0s``."""
    return go_duration(max(wait_s, 0.001))
