"""What the limiter's scripts tell Python to learn from, and what it knows: values only, no I/O.

Times are milliseconds of the server's clock, limits per minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

#: Which limit a refusal was about: "" when nobody said, "capacity" when it was none, but a server too busy.
Dimension = Literal["requests", "tokens", "capacity", ""]


@dataclass(frozen=True)
class Limit:
    """What is known of one limit, of requests or of tokens.

    Args:
        limit: learnt, as it has grown until now; 0 for none.
        start, ceiling, plateau_s, cut_at: how it grows, see above; ``cut_at`` by the server's clock, in milliseconds.
        in_force: the lowest of the configured, the learnt and the header's limit; 0 for none. Not written back.
        lagged: the learnt limit of a moment ago, when what is refused now was sent; 0 for none. Not written back.
    """

    limit: float = 0.0
    start: float = 0.0
    ceiling: float = 0.0
    plateau_s: float = 0.0
    cut_at: float = 0.0
    in_force: float = 0.0
    lagged: float = 0.0


@dataclass(frozen=True)
class Known:
    """What is known of a lane's limits.

    Args:
        rough: whose estimate is rough ("requests", "tokens" or ""), so that belated answers correct it.
        small_steps: steps down in a row without a measurement.
        version: raised by each write of what was learnt.
    """

    requests: Limit = Limit()
    tokens: Limit = Limit()
    rough: str = ""
    small_steps: int = 0
    version: int = 0


@dataclass(frozen=True)
class Counts:
    """What was counted of one dimension.

    Args:
        configured: the configured limit, as it is paced; 0 for none.
        accepted, reserved: since the measurement began.
        accepted_10_s: in the last ten seconds.
        stood_at: where its schedule stood when the refusal came, by the server's clock.
    """

    configured: float = 0.0
    accepted: float = 0.0
    reserved: float = 0.0
    accepted_10_s: float = 0.0
    stood_at: float = 0.0


@dataclass(frozen=True)
class LaneRefused:
    """A refusal that counts: not stale, and not at once after another.

    Args:
        now: the server's clock.
        dimension: which limit was hit.
        delay_ms: what the server asked for, 0 where it named none.
        awake_ms: since the lane began, or awoke from idling.
        measured_ms: since the measurement began, by the refusal before or with the lane.
        mean_tokens: of a request.
        refused_share: of the last minute's requests.
    """

    now: float
    dimension: Dimension
    delay_ms: float
    awake_ms: float
    measured_ms: float
    mean_tokens: float
    refused_share: float
    requests: Counts
    tokens: Counts


@dataclass(frozen=True)
class Reopened:
    """The server takes requests again, after it was closed for so long that we had to find out.

    Args:
        now: the server's clock.
        closed_ms: since it closed.
        whole_ms: from the beginning of the measurement that the closing ended until it opened.
        requests, tokens: accepted in this time.
    """

    now: float
    closed_ms: float
    whole_ms: float
    requests: float
    tokens: float


@dataclass(frozen=True)
class Belated:
    """Answers to what was sent before the last refusal: they belong to the measurement that it ended.

    Args:
        dimension: of what.
        accepted: so much more.
        before: so much was counted when the estimate was made.
    """

    dimension: str
    accepted: float
    before: float


Signal = LaneRefused | Reopened | Belated


def parse_signal(kind: str, values: Mapping[str, str]) -> Signal:
    """Make a signal of a script's names and values."""
    if kind == "belated":
        return Belated(values["dimension"], float(values["accepted"]), float(values["before"]))
    if kind == "reopened":
        return Reopened(**{each.name: float(values[each.name]) for each in fields(Reopened)})
    numbers: dict[str, Any] = {name: float(value) for name, value in values.items() if name != "dimension"}
    plain = {name: value for name, value in numbers.items() if "." not in name}
    requests, tokens = Counts(**_of("requests", numbers)), Counts(**_of("tokens", numbers))
    dimension: Any = values["dimension"]
    return LaneRefused(dimension=dimension, requests=requests, tokens=tokens, **plain)


def parse_known(values: Mapping[str, str]) -> Known:
    """Make what is known of a script's names and values."""
    numbers = {name: float(value) for name, value in values.items() if name != "rough"}
    return Known(
        Limit(**_of("requests", numbers)), Limit(**_of("tokens", numbers)), values["rough"],
        int(numbers["small_steps"]), int(numbers["version"]),
    )  # fmt: skip


def _of(dimension: str, values: Mapping[str, float]) -> dict[str, float]:
    prefix = dimension + "."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
