"""One request on its way through the stand-in, and what the parts of that way are called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from penstock.stand_in.options import Options
from penstock.stand_in.request.refusals import No
from penstock.stand_in.state import StandIn


@dataclass
class Call:
    """A request and what is known of it so far.

    Args:
        vendor: whose path it came by: the dialect's name.
        number: from 1, over all requests since the start or the last reset.
        key: the API key as presented, "" for none; never shown.
        body: the JSON object of the request; ``raw`` its bytes.
        model: the model or deployment, once read.
        headers: what every answer to it carries.
        arrived: on the stand-in's clock, in seconds.
    """

    stand_in: StandIn
    request: web.Request
    vendor: str
    number: int
    key: str
    result: float
    body: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    model: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> Options:
        """The options as they are now."""
        return self.stand_in.options


@dataclass(frozen=True)
class Work:
    """What a request asks for.

    Args:
        model: the model or deployment.
        texts: what is billed, text by text; faults look for their marks in them.
        tokens: of each text.
        cost: tokens charged against the limit.
        param: the name of the field in which the texts are.
        details: whatever the operation needs to answer.
    """

    model: str
    texts: Sequence[str]
    tokens: Sequence[int]
    cost: int
    param: str = "input"
    details: Any = None


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request, and which of its texts brings it."""

    kind: str
    position: int = 0


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An answer in pieces, sent as they are made. A ``cut-stream`` fault leaves the last half out."""

    parts: AsyncIterator[bytes]
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """How one vendor takes keys and words its errors."""

    name: str

    def words(self, call: Call, no: No) -> Reply:
        """Put a refusal into the vendor's words."""
        ...


@dataclass(frozen=True)
class StandInOperation:
    """One kind of request.

    Args:
        name: in the statistics.
        dialect: whose errors it speaks.
        read: takes the request apart; raises Refused if it has no sense at all.
        check: the vendor's caps, looked at after the request has been charged, as vendors do.
        answer: does the work. It sees the fault, for those that live in the answer's own contents.
    """

    name: str
    dialect: Dialect
    read: Callable[[Call], Work]
    check: Callable[[Call, Work], None]
    answer: Callable[[Call, Work, Fault | None], Reply | Stream | Awaitable[Reply | Stream]]
