"""What was asked, answered, billed and refused. Knows no HTTP; time is given to it, in seconds since 1970."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

TIMELINE_S = 600
_TOP = 20
_EXCERPT = 80


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass
class Second:
    """One second of the timeline."""

    served: int = 0
    limited: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass
class Billing:
    """How often each text was billed, by 8-byte hash, up to ``limit`` texts."""

    limit: int
    counts: dict[int, int] = field(default_factory=dict)
    repeated: dict[int, str] = field(default_factory=dict)
    texts: int = 0
    repeated_texts: int = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count each of ``texts`` as billed once more."""
        self.texts += len(texts)
        counts = self.counts
        for text in texts:
            key = _hash(text)
            before = counts.get(key, 0)
            if before == 0 and len(counts) >= self.limit:
                continue
            counts[key] = before + 1
            if before == 1:
                self.repeated_texts += 1
                if len(self.repeated) < 10 * _TOP:
                    self.repeated[key] = text[:_EXCERPT]

    def report(self) -> dict[str, Any]:
        """Return the counts; ``again`` is how many billings were not a text's first."""
        top = sorted(self.repeated, key=lambda key: -self.counts[key])[:_TOP]
        return {
            "texts_billed": self.texts,
            "distinct_texts": len(self.counts),
            "texts_billed_more_than_once": self.repeated_texts,
            "billed_again": sum(self.counts.values()) - len(self.counts),
            "untracked_texts": self.texts - sum(self.counts.values()),
            "most_billed": [{"count": self.counts[key], "text": self.repeated[key]} for key in top],
        }


@dataclass
class Stats:
    """Counters since the start or the last reset."""

    track_texts: int = 2_000_000
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    served: int = 0
    tokens: int = 0
    in_flight: int = 0
    in_flight_maximum: int = 0
    first_at: float | None = None
    last_at: float | None = None
    timeline: dict[int, Second] = field(default_factory=dict)
    billing: Billing = field(init=False)

    def __post_init__(self) -> None:
        self.billing = Billing(self.track_texts)

    def result(self, now: float, path: str, key: str) -> int:
        """Count a request that has come; returns its number, from 1. Keys are kept as hashes only."""
        self.requests += 1
        self.in_flight += 1
        self.in_flight_maximum = max(self.in_flight_maximum, self.in_flight)
        self.first_at = now if self.first_at is None else self.first_at
        self.paths[path] += 1
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12] if key else "none"
        if name in self.keys or len(self.keys) < 1000:
            self.keys[name] += 1
        return self.requests

    def left(self, now: float) -> None:
        """Count a request as no longer in flight."""
        self.in_flight -= 1
        self.last_at = now

    def second(self, now: float) -> Second:
        """Return the timeline's present second; what is older than ten minutes is forgotten."""
        moment = int(now)
        if moment not in self.timeline:
            self.timeline[moment] = Second()
            while len(self.timeline) > TIMELINE_S:
                self.timeline.pop(min(self.timeline))
        return self.timeline[moment]

    def answered(self, now: float, status: int) -> None:
        """Count an answer by its status."""
        self.statuses[status] += 1
        second = self.second(now)
        if status == 429:
            second.limited += 1
        elif status >= 400:
            second.failed += 1

    def billed(self, now: float, texts: Sequence[str], tokens: int) -> None:
        """Count a request as done and charged, whether or not its answer gets through."""
        self.served += 1
        self.tokens += tokens
        self.billing.add(texts)
        second = self.second(now)
        second.served += 1
        second.tokens += tokens

    def report(self, now: float, rpm: float | None, tpm: float | None) -> dict[str, Any]:
        """Return everything as JSON; ``rpm`` and ``tpm`` are what the limits let through a minute."""
        return {
            "requests": self.requests,
            "served": self.served,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "refusals": dict(self.refusals),
            "faults": dict(self.faults),
            "paths": dict(self.paths),
            "events": dict(self.events),
            "tokens": self.tokens,
            **self.billing.report(),
            "in_flight": self.in_flight,
            "in_flight_maximum": self.in_flight_maximum,
            "api_keys": dict(self.keys),
            "first_request_at": self.first_at,
            "last_answer_at": self.last_at,
            "steady_minute": steady_minute(self.timeline, rpm, tpm),
            "timeline": [
                [moment, second.served, second.limited, second.failed, second.tokens]
                for moment, second in sorted(self.timeline.items())
            ],
        }


def steady_minute(timeline: dict[int, Second], rpm: float | None, tpm: float | None) -> dict[str, Any]:
    """Return what was served in the last whole minute of work, and which share of the limits that is.

    The first second and the last are left out, for they are seldom whole. A shorter run gives a shorter span, which
    ``seconds`` tells; shares are None where there is no limit or nothing to go by.
    """
    if len(timeline) < 3:
        return {"seconds": 0, "requests": 0, "limited": 0, "tokens": 0, "requests_use": None, "tokens_use": None}
    last = max(timeline)
    first = max(min(timeline) + 1, last - 60)
    span = [second for moment, second in timeline.items() if first <= moment < last]
    seconds = last - first
    requests, tokens = sum(second.served for second in span), sum(second.tokens for second in span)
    return {
        "seconds": seconds,
        "requests": requests,
        "limited": sum(second.limited for second in span),
        "tokens": tokens,
        "requests_use": None if rpm is None or not seconds else round(requests / (rpm * seconds / 60), 4),
        "tokens_use": None if tpm is None or not seconds else round(tokens / (tpm * seconds / 60), 4),
    }
