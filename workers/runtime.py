"""What a process needs to work on lanes: settings, the endpoints, the lanes. Made once per process and event loop."""

from __future__ import annotations

import asyncio
import threading
from weakref import WeakKeyDictionary

import redis
import redis.asyncio

from penstock.config.redis import connect, connect_async, state_url
from penstock.config.settings import Settings, load_settings
from penstock.workers.endpoint_cache import Directory
from penstock.workers.lanes.lanes import Lanes
from penstock.workers.pool.loop import at_close


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
        self.directory = Directory(self.client, self.settings)
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, Lanes] = WeakKeyDictionary()
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()

    def lanes(self) -> Lanes:
        """Return the running event loop's lanes."""
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            lanes = self._lanes[loop] = Lanes(self.async_client(), self.settings.key_prefix)
        return lanes

    def async_client(self) -> redis.asyncio.Redis:
        """Return the running event loop's client."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = connect_async(state_server(self.settings))
            at_close(client.aclose)
        return client


_runtime: Runtime | None = None
_lock = threading.Lock()


def runtime() -> Runtime:
    """Return this process's runtime."""
    global _runtime
    with _lock:
        if _runtime is None:
            _runtime = Runtime()
        return _runtime


def forget_runtime() -> None:
    """Forget it: after a fork, and between tests."""
    global _runtime
    with _lock:
        _runtime = None
