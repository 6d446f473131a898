"""What a process needs to work on lanes, made and closed in one place: settings, endpoints, what was learnt of quotas.

A process has one, ``runtime()``; a test may have several. What belongs to an event loop (clients, lanes, coalescers) is
made on it when first asked for, and closed with it. What is kept of an endpoint is dropped when that is deleted or
changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.redis import connect, connect_async
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import state_url
from penstock.workers.endpoint_cache import EndpointCache
from penstock.workers.lanes.lanes import Lanes
from penstock.workers.lanes.quota import QuotaTable
from penstock.workers.pool.loop import at_close

T = TypeVar("T")


def state_server(settings: Settings) -> str:
    """Return the URL of the Redis that holds endpoints, lanes and jobs: configured, or the embedded broker's."""
    from penstock.workers.embedded.broker import socket_url  # it starts processes; those who only ask need not load it

    broker = settings.broker_url.get_secret_value() if settings.broker_url else socket_url(settings)
    results = settings.result_backend.get_secret_value() if settings.result_backend else broker
    return state_url(broker, results)


class Runtime:
    """Shared by all tasks of a process.

    Args:
        settings: read from the environment when None.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.client: redis.Redis = connect(state_server(self.settings))
        self.quotas = QuotaTable()
        self.endpoints = EndpointCache(self.client, self.settings, self._evict)
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[type, Any]] = WeakKeyDictionary()

    def of_loop(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return the running event loop's one object of a kind.

        Args:
            kind: its class. If that has ``aclose``, it is awaited before the loop ends; if it has ``evict``, it is
                given all endpoints, on the loop, whenever one of them has changed.
            make: makes it, on first use.
        """
        mine = self._of_loops.setdefault(asyncio.get_running_loop(), {})
        found = mine.get(kind)
        if found is None:
            found = mine[kind] = make()
            close = getattr(found, "aclose", None)
            if close is not None:
                at_close(close)
        return found

    def lanes(self) -> Lanes:
        """Return the running event loop's lanes."""
        return self.of_loop(Lanes, lambda: Lanes(self.async_client(), self.settings.key_prefix, self.quotas))

    def async_client(self) -> redis.asyncio.Redis:
        """Return the running event loop's client of the Redis that holds the state."""
        return self.of_loop(redis.asyncio.Redis, lambda: connect_async(state_server(self.settings)))

    def close(self) -> None:
        """Close what belongs to no event loop; loops close what is theirs."""
        self.client.close()

    def _evict(self, endpoints: list[Endpoint]) -> None:
        quotas = {endpoint.quota for endpoint in endpoints}
        self.quotas.evict(keep=quotas.__contains__)
        for loop, objects in list(self._of_loops.items()):
            for each in list(objects.values()):
                evict = getattr(each, "evict", None)
                if evict is not None:
                    with contextlib.suppress(RuntimeError):  # the loop is closed, and what was on it is gone
                        loop.call_soon_threadsafe(evict, endpoints)


_runtime: Runtime | None = None
_lock = threading.Lock()


def runtime() -> Runtime:
    """Return this process's runtime, made on first use."""
    global _runtime
    with _lock:
        if _runtime is None:
            _runtime = Runtime()
        return _runtime


def close_runtime() -> None:
    """Close this process's runtime: at the worker's end, and between tests. The next use makes another."""
    global _runtime
    with _lock:
        closing, _runtime = _runtime, None
    if closing is not None:
        closing.close()
