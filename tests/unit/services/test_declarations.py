"""What the services declare: Elasticsearch's required fields, defaults and caps, and whose quota is whose."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.endpoints.services import Caps, TaskType
from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.errors import EndpointInvalid
from penstock.config.settings import Settings
from support.wire import service

SETTINGS: dict[str, dict[str, Any]] = {
    "openai": {"api_key": "k", "model_id": "m"},
    "azureopenai": {"api_key": "k", "resource_name": "r", "deployment_id": "d", "api_version": "2024-10-21"},
    "azureaistudio": {
        "api_key": "k",
        "target": "https://r.services.ai.azure.com/models",
        "endpoint_type": "token",
        "provider": "cohere",
    },
    "amazonbedrock": {
        "access_key": "a",
        "secret_key": "s",
        "model": "m",
        "region": "us-east-1",
        "provider": "cohere",
    },
    "cohere": {"api_key": "k", "model_id": "m"},
}


@pytest.mark.parametrize(
    ("name", "task_type", "rate", "caps"),
    [
        ("openai", "text_embedding", 3000, Caps(2048, 8192, 300_000)),
        ("openai", "completion", 500, Caps()),
        ("openai", "chat_completion", 500, Caps()),
        ("openai", "image_generation", 240, Caps()),
        ("azureopenai", "text_embedding", 1440, Caps(2048, 8192)),
        ("azureopenai", "completion", 120, Caps()),
        ("azureopenai", "chat_completion", 120, Caps()),
        ("azureopenai", "image_generation", 6, Caps()),
        ("azureaistudio", "text_embedding", 240, Caps(96, 8192)),
        ("azureaistudio", "completion", 240, Caps()),
        ("azureaistudio", "image_embedding", 240, Caps()),
        ("amazonbedrock", "text_embedding", 240, Caps(96, 8192)),
        ("amazonbedrock", "chat_completion", 240, Caps()),
        ("cohere", "text_embedding", 10000, Caps(96)),
    ],
)
def test_the_least_that_is_required_makes_an_endpoint_with_the_default_limit(
    name: str, task_type: str, rate: float, caps: Caps
) -> None:
    body = {"service": name, "service_settings": SETTINGS[name]}
    made = validate_endpoint(task_type, "least", body, Settings())
    assert (made.rate_limit.requests_per_minute, made.caps) == (rate, caps)


@pytest.mark.parametrize(("name", "missing"), [(name, field) for name, fields in SETTINGS.items() for field in fields])
def test_each_of_them_is_missed_by_name(name: str, missing: str) -> None:
    left = {field: value for field, value in SETTINGS[name].items() if field != missing}
    with pytest.raises(EndpointInvalid, match=rf"\[{missing}\]"):
        validate_endpoint("text_embedding", "least", {"service": name, "service_settings": left}, Settings())


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("openai", {"client_secret": "s", "client_id": "c", "scopes": ["x"], "token_url": "https://t"}),
        ("azureopenai", {"entra_id": "t"}),
        ("azureopenai", {"client_secret": "s", "client_id": "c", "scopes": ["x"], "tenant_id": "t"}),
        ("amazonbedrock", {"api_key": "k"}),
    ],
)
def test_two_ways_to_authenticate_are_one_too_many_and_each_alone_is_enough(name: str, more: dict[str, Any]) -> None:
    both = {"service": name, "service_settings": SETTINGS[name] | more}
    with pytest.raises(EndpointInvalid, match="exactly one of"):
        validate_endpoint("text_embedding", "twice", both, Settings())
    keys = {"api_key", "access_key", "secret_key"}
    alone = {field: value for field, value in SETTINGS[name].items() if field not in keys} | more
    validate_endpoint("text_embedding", "once", {"service": name, "service_settings": alone}, Settings())


@pytest.mark.parametrize(
    ("name", "same", "other"),
    [
        ("openai", {"url": "https://api.openai.com:443/v1/chat/completions", "dimensions": 8}, {"model_id": "x"}),
        ("openai", {}, {"api_key": "x"}),
        ("openai", {}, {"organization_id": "x"}),
        ("openai", {}, {"url": "http://localhost:8080"}),
        ("azureopenai", {"api_key": "x", "api_version": "v"}, {"deployment_id": "x"}),
        ("azureaistudio", {"api_key": "x"}, {"model": "x"}),
        ("amazonbedrock", {"dimensions": 8}, {"region": "eu-west-1"}),
        ("cohere", {"url": "https://api.cohere.com/v2"}, {"api_key": "x"}),
    ],
)
def test_endpoints_share_a_quota_if_account_and_model_are_one(
    name: str, same: dict[str, Any], other: dict[str, Any]
) -> None:
    account = service(name).spec.account
    assert account(SETTINGS[name]) == account(SETTINGS[name] | same)
    assert account(SETTINGS[name]) != account(SETTINGS[name] | other)


def test_client_credentials_are_given_whole_or_not_at_all() -> None:
    check = service("openai").spec.check
    assert check(TaskType.COMPLETION, {"client_secret": "s", "client_id": "c", "scopes": ["x"]}, {}) == [
        "[service_settings] does not contain the required setting [token_url]"
    ]
    assert check(TaskType.COMPLETION, {"api_key": "k", "token_url": "https://t"}, {}) == [
        "[service_settings] [token_url] goes with [client_secret]"
    ]
