"""Which request goes wrong, and how. Pure: the same seed, numbers and texts give the same faults on every machine.

A kind is an HTTP status (``500``, ``503``, ``529``, ``408``, ``400`` ...) or one of ``KINDS``. A draw is made for each
request by its number (the faults of a run then depend on the order of requests), or for each text (a text
that draws a fault brings it on every batch it is in, for ever: a bad input).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

KINDS: Mapping[str, str] = {
    "reset-before": "connection reset before anything is done (not billed)",
    "reset-after": "connection reset instead of the answer (billed)",
    "stall": "no answer for --stall-s, then the right one (billed)",
    "slow": "the right answer, --slow-s late (billed)",
    "malformed": "a 200 that is no JSON (billed)",
    "truncated": "a body that ends half-way, connection closed (billed)",
    "short": "the last vector is missing (billed)",
    "wrong-dimension": "one vector has one number less (billed)",
    "nan": "one vector holds a NaN (billed)",
    "shuffled": "right, but in another order, index set right (billed)",
    "error-200": "a 200 with an error object (not billed)",
    "html-200": "a 200 of text/html, as proxies send (not billed)",
    "empty-200": "a 200 with an empty body (not billed)",
    "cut-stream": "a stream ends half-way, without end mark (billed)",
    "error-stream": "a stream has an error event half-way (billed)",
    "filtered-output": "the content filter stops a completion (billed)",
    "content-filter": "400: the input was filtered",
    "too-long": "400: an input is longer than the model takes",
}
ALIASES = {"content_filter": "content-filter", "too_long": "too-long", "reset": "reset-before"}

UNBILLED = frozenset({"reset-before", "error-200", "html-200", "empty-200", "content-filter", "too-long"})


def normal_kind(kind: str) -> str:
    """Return the kind's own name.

    Raises:
        ValueError: there is no such kind.
    """
    kind = ALIASES.get(kind, kind)
    if kind in KINDS or (kind.isdecimal() and 400 <= int(kind) <= 599):
        return kind
    raise ValueError(f"no fault is called {kind!r}: give a status from 400 to 599 or one of {', '.join(KINDS)}")


def uniform(seed: int, number: int) -> float:
    """Return a number in [0, 1) that is even over ``number`` (splitmix64)."""
    value = (seed * 0xD1342543DE82EF95 + (number + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) / 2**64


def pick(rates: Mapping[str, float], draw: float) -> str | None:
    """Return the kind on which ``draw`` in [0, 1) falls, None for no fault."""
    for kind, rate in rates.items():
        if draw < rate:
            return kind
        draw -= rate
    return None


def marked(texts: Sequence[str], poison: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the fault and the position of the first text with a mark: one of ``poison``, or ``[[KIND]]`` itself."""
    for position, text in enumerate(texts):
        for mark, kind in poison.items():
            if mark in text:
                return kind, position
        if "[[" in text and (kind := text.partition("[[")[2].partition("]]")[0]):
            try:
                return normal_kind(kind), position
            except ValueError:
                continue
    return None


def fault_of(
    number: int, texts: Sequence[str], rates: Mapping[str, float], poison: Mapping[str, str], by_text: bool, seed: int
) -> tuple[str, int] | None:
    """Decide what goes wrong with request ``number``.

    Returns:
        The kind and the position of the text that it befalls (the first but for poison and ``by_text``), or None.
    """
    if found := marked(texts, poison):
        return found
    if not rates:
        return None
    if not by_text:
        kind = pick(rates, uniform(seed, number))
        return (kind, 0) if kind else None
    for position, text in enumerate(texts):
        draw = uniform(seed, zlib.crc32(text.encode("utf-8", "surrogatepass")))
        if kind := pick(rates, draw):
            return kind, position
    return None
