"""What the app needs once it is used: the settings, as Celery's configuration, and the bell that publishers ring."""

from __future__ import annotations

from typing import Any

from penstock.config.celery import celery_settings
from penstock.config.names import OTHERS_QUEUE
from penstock.config.settings import load_settings
from penstock.config.urls import is_redis, state_url
from penstock.workers.broker.bells import Bell
from penstock.workers.directory.check import SenderCheck
from penstock.workers.embedded.broker import urls
from penstock.workers.results import serializers
from penstock.workers.results.backend import PLAIN, backend_url


def configuration() -> tuple[dict[str, Any], Bell | None, SenderCheck]:
    """Return Celery's configuration by the settings of this moment; the broker's bell, if it has one; and what is asked
    before a task is sent.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = load_settings()
    found = urls(settings)
    serializers.register()
    bell = Bell(found.broker, settings.key_prefix) if is_redis(found.broker) else None
    check = SenderCheck(state_url(found.broker, found.results), settings.key_prefix)
    return celery_settings(settings, found.broker, backend_url(found.results)), bell, check


def plain_configuration() -> dict[str, Any]:
    """Return the configuration of a Celery app as anybody's on our servers: no prefix, no compression, JSON.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = load_settings()
    found = urls(settings)
    ours = celery_settings(settings, found.broker, backend_url(found.results, PLAIN))
    kept = {name: value for name, value in ours.items() if name.startswith(("broker_", "redis_", "result_"))}
    options = {name: value for name, value in ours["broker_transport_options"].items() if name != "global_keyprefix"}
    return {
        **kept,
        "broker_transport_options": options,
        "result_backend_transport_options": {},
        "result_serializer": "json",
        "result_accept_content": ["json"],
        "task_default_queue": OTHERS_QUEUE,
    }
