"""What a service is: its settings, and pure functions between our calls and its bytes. No I/O, no clock, no lane.

A service builds a ``Request`` for a call, and turns a ``Response`` into an answer or raises ``Refused`` with the
outcome. The rest (keys in place, sending, pacing, retries, splitting) is the same for all and is none of its business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from numpy.typing import NDArray

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import ServiceSpec
from penstock.tasks.services.wire import headers
from penstock.workers.lanes.outcome import HeaderLimits, Outcome
from penstock.workers.results.types import Choice, Usage


@dataclass(frozen=True)
class Request:
    """One HTTP request. ``headers`` carry the key, so they are not in ``repr``."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Response:
    """One HTTP answer, read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Refused(Exception):
    """The answer is no vectors, no text, no images; ``outcome`` says what it is instead."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.kind}: {outcome.code} {outcome.message}")
        self.outcome = outcome


@dataclass(frozen=True)
class EmbedCall:
    """Texts (or, for ``image_embedding``, mappings with ``image`` and perhaps ``text``) for one request.

    ``task_settings`` are the endpoint's, overridden by the call's; ``input_type`` is Elasticsearch's
    (``search``, ``ingest``, ``classification``, ``clustering``) or None.
    """

    inputs: Sequence[Any]
    input_type: str | None = None
    task_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CompleteCall:
    """Messages (chat) or a prompt (string or list of strings) with the request's own parameters."""

    prompt: str | Sequence[str] | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    stream: bool = False
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageCall:
    """A prompt for images with the request's own parameters (``n``, ``size``, ``quality`` ...)."""

    prompt: str
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Embeddings:
    """A checked answer: ``vectors`` is ``(n, d)`` in input order, finite, float32 (or the typed array asked for)."""

    vectors: NDArray[Any]
    usage: Usage = Usage()
    model: str = ""


@dataclass(frozen=True)
class Completion:
    """A checked answer of a completion."""

    choices: tuple[Choice, ...]
    usage: Usage = Usage()
    model: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Delta:
    """A piece of a stream. ``done`` is the stream's own end mark; ``usage`` comes with the last piece, if at all.

    ``restart`` says that everything before it is void: the worker died, and another began the answer anew.
    """

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    done: bool = False
    restart: bool = False


@dataclass(frozen=True)
class ImageOperation:
    """Where an image generation stands.

    Args:
        state: ``SUBMITTED``, ``RUNNING``, ``SUCCEEDED`` or ``FAILED`` (then ``outcome`` says why; ``canceled`` and
            ``deleted`` are failures too).
        operation_id: the provider's id, None for a synchronous answer.
        poll_url: where to ask next (already checked to be of the endpoint's own origin), None when there is none.
        delay_s: the server's pace for polling, in seconds.
        urls, b64, revised_prompts: the images, when it SUCCEEDED.
        item_errors: per image ``(index, code, message)``, where single ones failed.
    """

    state: str
    operation_id: str | None = None
    poll_url: str | None = None
    delay_s: float | None = None
    urls: tuple[str, ...] = ()
    b64: tuple[str, ...] = field(default=(), repr=False)
    revised_prompts: tuple[str | None, ...] = ()
    item_errors: tuple[tuple[int, str, str], ...] = ()
    outcome: Outcome | None = None
    usage: Usage = Usage()


class Service:
    """Base of the services. A service overrides what it offers; the rest refuses.

    Requests are built from the endpoint (its ``secrets`` included) and a call; ``read_*`` take what came back, of any
    status, and raise ``Refused``. ``refusal`` names any non-2xx answer: headers, ``Retry-After``, codes.

    A request builder raises ``Refused`` too, for an input that cannot be written down (INPUT_REFUSED with its
    ``input_index``), and ``InputInvalid`` for a call that no request can express.

    Args:
        clock: UNIX seconds; only for a ``Retry-After`` date in an answer that has no ``Date``.
    """

    spec: ClassVar[ServiceSpec]

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock

    def token_request(self, endpoint: Endpoint) -> Request | None:
        """Build the request for an access token, None where the endpoint's secrets are enough by themselves.

        The token goes into ``endpoint.secrets["access_token"]`` for the other builders.
        """
        return None

    def read_token(self, response: Response) -> tuple[str, float]:
        """Return a token and for how many seconds it lasts. Raises Refused."""
        raise NotImplementedError

    def limits(self, response: Response) -> HeaderLimits:
        """What any answer's headers say of the quota."""
        return headers.limits(response.headers)

    def embed_request(self, endpoint: Endpoint, call: EmbedCall) -> Request:
        """Build the request for one batch of inputs."""
        raise NotImplementedError

    def read_embeddings(self, endpoint: Endpoint, call: EmbedCall, response: Response) -> Embeddings:
        """Check and decode the answer. Raises Refused."""
        raise NotImplementedError

    def complete_request(self, endpoint: Endpoint, call: CompleteCall) -> Request:
        """Build the request for a completion, streaming or not."""
        raise NotImplementedError

    def read_completion(self, endpoint: Endpoint, call: CompleteCall, response: Response) -> Completion:
        """Check and decode a whole answer. Raises Refused."""
        raise NotImplementedError

    def stream_reader(self, endpoint: Endpoint, call: CompleteCall) -> StreamReader:
        """Return a fresh decoder for one streamed answer."""
        raise NotImplementedError

    def image_request(self, endpoint: Endpoint, call: ImageCall) -> Request:
        """Build the request that submits (or, synchronously, makes) the images."""
        raise NotImplementedError

    def read_image(self, endpoint: Endpoint, call: ImageCall, response: Response) -> ImageOperation:
        """Read the answer to ``image_request``. Raises Refused."""
        raise NotImplementedError

    def operations(self, endpoint: Endpoint) -> int:
        """Return how many image operations the account may have in flight, 0 for no such limit."""
        return 0

    def poll_request(self, endpoint: Endpoint, poll_url: str) -> Request:
        """Build the request that asks for an operation's state."""
        raise NotImplementedError

    def read_poll(self, endpoint: Endpoint, poll_url: str, response: Response) -> ImageOperation:
        """Read an operation's state, from a 400 that carries an operation document too. Raises Refused."""
        raise NotImplementedError

    def delete_request(self, endpoint: Endpoint, poll_url: str) -> Request | None:
        """Build the request that deletes a finished operation, None where the service has none."""
        return None

    def info_request(self, endpoint: Endpoint) -> Request | None:
        """Build a request for what is deployed there, None where the service has no such call."""
        return None

    def read_info(self, response: Response) -> Mapping[str, str]:
        """Read the answer to ``info_request``: its ``model_name``, ``model_type`` and ``model_provider_name``.

        Raises Refused.
        """
        raise NotImplementedError

    def refusal(self, response: Response, endpoint: Endpoint | None = None) -> Outcome:
        """Name a non-2xx answer. With the endpoint, its secrets are masked wherever the message repeats them."""
        raise NotImplementedError


class StreamReader:
    """Decodes one streamed answer: feed bytes as they come, get deltas; pure."""

    def feed(self, data: bytes) -> Iterator[Delta]:
        """Yield what ``data`` completes. Raises Refused on an error event in mid-stream."""
        raise NotImplementedError

    def close(self) -> None:
        """Say that the bytes have ended. Raises Refused (code ``stream_cut``) unless the end mark had come."""
        raise NotImplementedError

    def completion(self) -> Completion:
        """Return what has come so far, put together as an answer without streaming would be."""
        raise NotImplementedError
