"""Tokens for client credentials: the request and what comes back."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest

from penstock.tasks.services.base import Refused
from penstock.workers.lanes.outcome import OutcomeKind
from support.wire import answer, endpoint, service

AZURE = service("azureopenai")
SCOPE = "https://cognitiveservices.azure.com/.default"
SETTINGS = {"resource_name": "r", "deployment_id": "d", "api_version": "v", "client_id": "c", "tenant_id": "t/1"}


def target(**more: Any) -> Any:
    return endpoint("azureopenai", "completion", SETTINGS | {"scopes": [SCOPE]} | more, {"client_secret": "s&=cret"})


def test_the_credentials_are_posted_as_a_form_to_the_tenant() -> None:
    request = AZURE.token_request(target())
    assert request is not None
    assert (request.method, request.url) == ("POST", "https://login.microsoftonline.com/t%2F1/oauth2/v2.0/token")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["c"],
        "client_secret": ["s&=cret"],
        "scope": [SCOPE],
    }
    assert "cret" not in repr(request)


def test_a_token_url_stands_in_for_microsoft_s() -> None:
    request = AZURE.token_request(target(token_url="http://127.0.0.1:9/token"))
    assert request is not None
    assert request.url == "http://127.0.0.1:9/token"


@pytest.mark.parametrize("name", ["openai", "azureopenai", "azureaistudio", "amazonbedrock", "cohere"])
def test_a_key_needs_no_token(name: str) -> None:
    assert service(name).token_request(endpoint(name, "completion", SETTINGS)) is None


@pytest.mark.parametrize(
    ("expires_in", "seconds"), [(3599, 3599.0), ("3599", 3599.0), (None, 300.0), (-1, 300.0), ("soon", 300.0)]
)
def test_a_token_comes_with_its_life(expires_in: Any, seconds: float) -> None:
    body = {"token_type": "Bearer", "expires_in": expires_in, "access_token": "eyJ0.x"}
    assert AZURE.read_token(answer(body)) == ("eyJ0.x", seconds)


AADSTS = {
    "error": "invalid_client",
    "error_description": "AADSTS7000215: Invalid client secret provided. Trace ID: 0000 Timestamp: 2026-01-01",
    "error_codes": [7000215],
}


@pytest.mark.parametrize(
    ("body", "status", "outcome_kind", "code"),
    [
        (AADSTS, 401, OutcomeKind.UNAUTHORIZED, "invalid_client"),
        (AADSTS | {"error": "invalid_scope"}, 400, OutcomeKind.UNAUTHORIZED, "invalid_scope"),
        ("", 404, OutcomeKind.UNAUTHORIZED, "invalid_client"),
        ("", 429, OutcomeKind.RATE_LIMITED, "rate_limit_exceeded"),
        ("", 503, OutcomeKind.SERVER_ERROR, "server_error"),
        ({}, 200, OutcomeKind.MALFORMED, "no_token"),
        ({"access_token": ""}, 200, OutcomeKind.MALFORMED, "no_token"),
        ({"access_token": "a\nb"}, 200, OutcomeKind.MALFORMED, "no_token"),
        ("<html>", 200, OutcomeKind.MALFORMED, "not_json"),
    ],
)
def test_a_refused_token_says_whether_to_wait_or_to_call_someone(
    body: Any, status: int, outcome_kind: OutcomeKind, code: str
) -> None:
    with pytest.raises(Refused) as caught:
        AZURE.read_token(answer(body, status))
    assert (caught.value.outcome.kind, caught.value.outcome.code) == (outcome_kind, code)
