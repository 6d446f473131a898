"""Celery's configuration."""

from __future__ import annotations

import kombu.compression
import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.celery import celery_settings, message_compression, with_certificate_check
from penstock.config.settings import Settings


def test_every_name_is_one_of_celerys(settings: Settings) -> None:
    known = {name for name, _ in flatten(NAMESPACES)} | {"broker_url", "result_backend"}
    made = celery_settings(settings, "redis://h/0", "redis://h/0")
    # Read with getattr by the Redis back end, not declared among the defaults.
    assert set(made) - known <= {"redis_backend_health_check_interval"}


def test_a_celery_app_takes_it(settings: Settings) -> None:
    app = Celery("t", set_as_current=False)
    app.conf.update(celery_settings(settings, "redis://h/0", "redis://h/0"))
    assert app.conf.broker_transport_options["visibility_timeout"] == settings.visibility_timeout_s
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_acks_late is True


def test_dead_workers_messages_come_back_within_seconds_of_their_time_out(settings: Settings) -> None:
    options = celery_settings(settings, "redis://h/0", "redis://h/0")["broker_transport_options"]
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] <= 2


def test_keys_of_two_penstocks_on_one_server_are_apart() -> None:
    made = celery_settings(Settings(key_prefix="other:"), "redis://h/0", "redis://h/0")
    assert made["broker_transport_options"]["global_keyprefix"] == "other:"
    assert made["result_backend_transport_options"]["global_keyprefix"] == "other:"


def test_rabbitmq_gets_none_of_redis_options(settings: Settings) -> None:
    assert celery_settings(settings, "amqp://h", "redis://h/0")["broker_transport_options"] == {}


def test_a_unix_socket_gets_no_keepalive(settings: Settings) -> None:
    url = "redis+socket:///s?virtual_host=0"
    assert celery_settings(settings, url, url)["redis_socket_keepalive"] is False
    assert celery_settings(settings, url, "redis://h/0")["redis_socket_keepalive"] is True


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://h/0", "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://h/0?a=b", "rediss://h/0?a=b&ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis://h/0", "redis://h/0"),
    ],
)
def test_certificates_are_checked_unless_told_otherwise(url: str, expected: str) -> None:
    assert with_certificate_check(url) == expected


@given(st.binary(max_size=2000))
def test_messages_come_out_of_their_compression_as_they_went_in(data: bytes) -> None:
    packed, kind = kombu.compression.compress(data, message_compression())
    assert kind == "application/zstd"
    assert kombu.compression.decompress(packed, kind) == data
