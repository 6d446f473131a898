"""Sends requests: one client an event loop, foreign errors named at this border.

httpx's own transport does not scale past some 16 requests in flight; aiohttp's, under httpx's API, does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import aiohttp
import httpx
from celery import signals
from httpx_aiohttp import AiohttpTransport

from penstock.tasks.services.base import Refused, Request, Response
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.runtime import Runtime

#: Connections one process may open; the lanes bound what is in flight.
CONNECTIONS = 2000
KEEP_ALIVE_S = 30.0
#: A stream that is silent for so long, in seconds, is dead.
SILENCE_S = 60.0


@dataclass(frozen=True)
class Streamed:
    """An answer whose body is still coming. Header names are lower case; ``parts`` gives the body as it comes."""

    status: int
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]

    async def whole(self) -> Response:
        """Read the rest of the body. Raises Refused as ``exchange`` does."""
        return Response(self.status, self.headers, b"".join([part async for part in self.parts]))


class HttpClient:
    """Sends requests on one event loop. Make it there, and await ``aclose`` there.

    Args:
        connect_timeout_s: seconds for a connection.
    """

    def __init__(self, connect_timeout_s: float) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes a line for every request
        loop = asyncio.get_running_loop()
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(verify=_tls(), client=lambda: _session(loop)),
            timeout=httpx.Timeout(None, connect=connect_timeout_s),
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def exchange(self, request: Request, timeout_s: float) -> Response:
        """Send one request and read the whole answer.

        Args:
            request: what to send.
            timeout_s: seconds for all of it, connecting included.

        Raises:
            Refused: there is no answer; NOT_SENT when nothing can have been billed, else NO_ANSWER.
        """
        with _named(timeout_s):
            async with asyncio.timeout(timeout_s):
                answer = await self._client.request(
                    request.method, request.url, headers=dict(request.headers), content=request.body or None
                )
        return Response(answer.status_code, _lower(answer.headers), answer.content)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request, timeout_s: float, silence_s: float = SILENCE_S) -> AsyncIterator[Streamed]:
        """Send one request and read its answer part by part inside the block, each part as soon as it comes.

        Args:
            request: what to send.
            timeout_s: seconds for all of it, connecting included.
            silence_s: seconds for which the server may be silent once it has begun to answer.

        Raises:
            Refused: as ``exchange`` does; on entering, and from ``parts``.
        """
        end = asyncio.get_running_loop().time() + timeout_s
        headers = {"Accept-Encoding": "identity", **request.headers}  # a compressor would hold parts back
        with _named(timeout_s):
            async with asyncio.timeout_at(end):
                sent = self._client.build_request(
                    request.method, request.url, headers=headers, content=request.body or None
                )
                answer = await self._client.send(sent, stream=True)
        try:
            yield Streamed(answer.status_code, _lower(answer.headers), _parts(answer, end, timeout_s, silence_s))
        finally:
            with contextlib.suppress(httpx.HTTPError, aiohttp.ClientError, OSError):  # nobody waits for it any more
                await answer.aclose()


def http_client(runtime: Runtime) -> HttpClient:
    """Return the running event loop's client, made on first use."""
    return runtime.of_loop(HttpClient, lambda: HttpClient(runtime.settings.connect_timeout_s))


async def _parts(answer: httpx.Response, end: float, timeout_s: float, silence_s: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    parts = answer.aiter_bytes()
    while True:
        silent_until = loop.time() + silence_s
        with _named(timeout_s if end <= silent_until else silence_s):
            async with asyncio.timeout_at(min(end, silent_until)):
                part = await anext(parts, None)
        if part is None:
            return
        if part:
            yield part


@contextlib.contextmanager
def _named(timeout_s: float) -> Iterator[None]:
    """Turn the transport's errors inside the block into Refused."""
    try:
        yield
    except TimeoutError as exc:
        raise Refused(_lost("timeout", f"no answer within {timeout_s:g} s")) from exc
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as exc:
        raise Refused(transport_outcome(exc)) from exc


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def transport_outcome(exc: BaseException) -> Outcome:
    """Name a transport error: was the request sent, and may it have been billed?"""
    # httpx-aiohttp gives every broken connection as a ConnectTimeout, even one broken after sending: the cause tells.
    cause = exc.__cause__
    if isinstance(exc, httpx.ConnectError) or isinstance(cause, aiohttp.ClientConnectorError):
        return _unsent("host_unreachable", f"the host cannot be reached: {_words(exc)}")
    if isinstance(exc, httpx.PoolTimeout) or isinstance(cause, aiohttp.ConnectionTimeoutError):
        return _unsent("connect_timeout", "the host did not accept a connection in time")
    if isinstance(cause, aiohttp.ClientConnectionError) and not isinstance(cause, aiohttp.ServerTimeoutError):
        return _lost("connection_lost", f"the connection broke before the answer was complete: {_words(exc)}")
    if isinstance(exc, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return Outcome(OutcomeKind.NOT_FOUND, "invalid_url", f"the endpoint's URL makes no sense: {_words(exc)}")
    if isinstance(exc, httpx.TimeoutException):
        return _lost("timeout", "the server stopped answering")
    return _lost("connection_lost", f"the connection broke before the answer was complete: {_words(exc)}")


def _words(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__)[:200]


def _unsent(code: str, message: str) -> Outcome:
    return Outcome(OutcomeKind.NOT_SENT, code, message)


def _lost(code: str, message: str) -> Outcome:
    return Outcome(OutcomeKind.NO_ANSWER, code, message)


def _session(loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S, ssl=_tls(), ttl_dns_cache=60, loop=loop
    )
    return aiohttp.ClientSession(connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar())


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@signals.worker_init.connect(weak=False)
def _prepare(**_: object) -> None:
    """Make the TLS context while nobody waits: it takes tens of ms, for which the first requests would be late."""
    _tls()
