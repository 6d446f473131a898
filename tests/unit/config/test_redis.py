"""Redis URLs as Celery spells them, passwords hidden, errors in our words."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis

from penstock.config.errors import BrokerUnavailable, ConfigurationError
from penstock.config.redis import connect, reachable, translated
from penstock.config.urls import hide_password, state_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user:pw@h:6379/0", "redis://user:***@h:6379/0"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("redis://user:p@w:x@h/0", "redis://user:***@h/0"),
        (
            "redis+socket:///run/r.sock?virtual_host=1&password=pw",
            "redis+socket:///run/r.sock?virtual_host=1&password=***",
        ),
        ("amqp://guest:pw@h//", "amqp://guest:***@h//"),
        ("redis://[broken:pw@h", "redis://***"),
        ("nothing", "://nothing"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown
    assert "pw" not in hide_password(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:7/2", {"host": "h", "port": 7, "db": 2}),
        ("redis+socket:///run/r.sock?virtual_host=3", {"path": "/run/r.sock", "db": 3}),
        ("redis+socket://u:p%40w@/run/r.sock", {"path": "/run/r.sock", "db": 0, "username": "u", "password": "p@w"}),
        ("redis+socket:///a%20b/r.sock", {"path": "/a b/r.sock"}),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none"}),
    ],
)
def test_celerys_urls_are_understood(url: str, expected: dict[str, Any]) -> None:
    kwargs = connect(url).connection_pool.connection_kwargs
    assert {name: kwargs[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:pw@h:port/0", "makes no sense"),
        ("redis://:pw@h/db", "number of a database"),
        ("redis+socket://", "path of a socket"),
        ("http://h", "must start with redis://"),
    ],
)
def test_a_url_that_makes_no_sense_is_a_configuration_error(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_BROKER_URL") as caught:
        connect(url)
    assert reason in str(caught.value)
    assert "pw" not in str(caught.value)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    url = "redis://user:pw@127.0.0.1:1/0"
    with pytest.raises(BrokerUnavailable, match=r"redis://user:\*\*\*@127.0.0.1:1/0 cannot be reached"):
        reachable(connect(url, timeout_s=1), url)


def test_a_refused_command_says_what_to_look_at() -> None:
    with pytest.raises(BrokerUnavailable, match="see to its memory and disk"), translated("redis://h/0"):
        raise redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots")


def test_endpoints_and_lanes_live_in_the_broker_or_beside_a_rabbitmq() -> None:
    assert state_url("redis://a/0", "redis://b/0") == "redis://a/0"
    assert state_url("amqp://a", "redis://b/0") == "redis://b/0"


def test_no_client_logs_the_password(caplog: pytest.LogCaptureFixture) -> None:
    url = "redis://user:pw-in-no-log@127.0.0.1:1/0"
    with caplog.at_level(logging.DEBUG), pytest.raises(BrokerUnavailable):
        reachable(connect(url, timeout_s=1), url)
    assert "pw-in-no-log" not in caplog.text
