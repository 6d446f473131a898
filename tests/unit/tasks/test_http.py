"""Transport errors by name: was the request sent, and may it have been billed?"""

from __future__ import annotations

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from penstock.tasks.request.http import transport_outcome
from penstock.workers.lanes.outcome import OutcomeKind

KEY = ConnectionKey("localhost", 1, False, True, None, None, None, None)


def caused(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause", "outcome_kind", "code"),
    [
        (httpx.ConnectError("x"), None, OutcomeKind.NOT_SENT, "host_unreachable"),
        (
            httpx.ConnectTimeout("x"),
            aiohttp.ClientConnectorError(KEY, OSError(111, "refused")),
            OutcomeKind.NOT_SENT,
            "host_unreachable",
        ),
        (httpx.ConnectTimeout("x"), aiohttp.ConnectionTimeoutError(), OutcomeKind.NOT_SENT, "connect_timeout"),
        # httpx-aiohttp gives these as ConnectTimeout, too.
        (httpx.ConnectTimeout("x"), aiohttp.ServerDisconnectedError(), OutcomeKind.NO_ANSWER, "connection_lost"),
        (httpx.ConnectTimeout("x"), aiohttp.ClientOSError(104, "reset"), OutcomeKind.NO_ANSWER, "connection_lost"),
        (httpx.ReadTimeout("x"), aiohttp.SocketTimeoutError(), OutcomeKind.NO_ANSWER, "timeout"),
        (httpx.ReadError("x"), aiohttp.ClientPayloadError(), OutcomeKind.NO_ANSWER, "connection_lost"),
        (httpx.UnsupportedProtocol("x"), None, OutcomeKind.NOT_FOUND, "invalid_url"),
    ],
)
def test_each_error_has_its_fate(
    error: Exception, cause: Exception | None, outcome_kind: OutcomeKind, code: str
) -> None:
    outcome = transport_outcome(caused(error, cause))
    assert (outcome.kind, outcome.code) == (outcome_kind, code)
