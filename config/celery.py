"""Celery's configuration, made from ours. No Celery object is made here.

Facts about kombu's and Celery's options: their 5.7 documentation, ``kombu.transport.redis`` and
``celery.app.defaults``.
"""

from __future__ import annotations

from typing import Any

import kombu.compression
import zstandard

from penstock.config.names import DEFAULT_QUEUE, KOMBU_UNACKED
from penstock.config.settings import Settings
from penstock.config.urls import scheme_of

RESULT_SERIALIZER = "penstock"
RESULT_CONTENT_TYPE = "application/vnd.penstock.result"
POOL = "penstock.workers.pool.pool:TaskPool"
CONSUMER = "penstock.workers.broker.consumer:LaneConsumer"
ROUTER = "penstock.workers.app:route"

# How often a worker looks for the messages of dead workers. kombu multiplies the interval by the throttle; its
# defaults (10 x 10) leave a message of a dead worker alone for minutes, however short the visibility timeout.
RESTORE_INTERVAL_S = 1
RESTORE_THROTTLE = 1


def celery_settings(settings: Settings, broker_url: str, result_url: str) -> dict[str, Any]:
    """Return Celery's configuration.

    Args:
        settings: ours.
        broker_url: as kombu is to read it.
        result_url: the result back end's, a Redis.
    """
    return {
        "broker_url": with_certificate_check(broker_url),
        "result_backend": with_certificate_check(result_url),
        **_connections(settings, broker_url, result_url),
        **_contents(),
        **_tasks(),
        **_workers(settings),
    }


def with_certificate_check(url: str) -> str:
    """Ask for a checked certificate where a ``rediss`` URL says nothing: Celery's back end refuses to guess."""
    if not scheme_of(url).endswith("rediss") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=CERT_REQUIRED"


def message_compression() -> str:
    """Return the name of the compression of task messages, registered with kombu.

    kombu itself knows zstd only on Python 3.14 or with ``backports.zstd``. All processes of a deployment must read
    what any of them sends, so it is registered from ``zstandard`` elsewhere.
    """
    if "application/zstd" not in kombu.compression.encoders():
        kombu.compression.register(
            zstandard.compress, zstandard.decompress, "application/zstd", aliases=["zstd", "zstandard"]
        )
    return "zstd"


def _connections(settings: Settings, broker_url: str, result_url: str) -> dict[str, Any]:
    return {
        "broker_connection_timeout": settings.connect_timeout_s,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker outlives its broker's restart, however long it takes
        "broker_transport_options": _transport_options(settings, broker_url),
        "result_backend_transport_options": {"global_keyprefix": settings.key_prefix},
        "redis_socket_connect_timeout": settings.connect_timeout_s,
        "redis_socket_keepalive": not _is_socket(result_url),  # redis-py's unix connections do not take the option
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": 30,
        "result_expires": settings.result_expires_s,
    }


def _is_socket(url: str) -> bool:
    return scheme_of(url).endswith("+socket")


def _transport_options(settings: Settings, broker_url: str) -> dict[str, Any]:
    if scheme_of(broker_url) in ("amqp", "amqps"):
        return {}  # py-amqp refuses options that it does not know
    return {
        # The prefix keeps our unacknowledged messages apart from those of other Celery apps on the same server:
        # ours are restored after seconds, theirs perhaps after hours.
        "global_keyprefix": settings.key_prefix,
        "visibility_timeout": settings.visibility_timeout_s,
        "unacked_restore_interval": RESTORE_INTERVAL_S,
        "unacked_restore_throttle": RESTORE_THROTTLE,
        # kombu restores what stands under its own keys by the client's clock: never our leases.
        **KOMBU_UNACKED,
        "priority_steps": [0],  # each step more is one more key a queue in every BRPOP
        "queue_order_strategy": "round_robin",
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def _contents() -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_serializer": RESULT_SERIALIZER,
        "result_accept_content": [RESULT_CONTENT_TYPE, "json"],
        "task_compression": message_compression(),
    }


def _tasks() -> dict[str, Any]:
    return {
        "task_default_queue": DEFAULT_QUEUE,
        "task_routes": [ROUTER],
        "task_acks_late": True,
        "task_track_started": False,
        "task_send_sent_event": True,
        "result_extended": False,  # would store every text again beside its vector
    }


def _workers(settings: Settings) -> dict[str, Any]:
    return {
        "worker_pool": POOL,
        "worker_consumer": CONSUMER,
        "worker_concurrency": settings.concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_deduplicate_successful_tasks": True,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": True,
    }
