"""The endpoints as this process knows them: by id, kept fresh from the registry, one cache a process.

Whoever asks first after ``FRESH_S`` looks; what has changed is told to those who keep something of an endpoint.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import redis

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.errors import BrokerUnavailable
from penstock.config.settings import Settings
from penstock.workers.lanes.limiter import unpark_changed

logger = logging.getLogger(__name__)

#: Seconds for which an answer is good; a changed endpoint is seen after at most this long.
FRESH_S = 0.5


class EndpointCache:
    """Endpoints by id.

    Args:
        client: of the Redis that holds the registry.
        settings: for the key prefix and the secret key.
        on_change: is given all endpoints after each change of any of them.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        on_change: Callable[[list[Endpoint]], None] = lambda endpoints: None,
    ) -> None:
        self._registry = Registry(client, settings)
        self._client, self._prefix = client, settings.key_prefix
        self._on_change = on_change
        #: Seconds for which an answer is good; longer where somebody looks now and then by ``refresh(now=True)``.
        self.fresh_s = FRESH_S
        self._endpoints: dict[str, Endpoint] = {}
        self._version: str | None = None
        self._looked_at = float("-inf")
        self._lock = threading.Lock()

    def get(self, inference_id: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            EndpointNotFound: there is none of this id, by a look at the registry itself.
        """
        return self.find(inference_id) or self._registry.get(inference_id)

    async def get_async(self, inference_id: str) -> Endpoint:
        """As ``get``, on an event loop: what is fresh is had at once, a look is taken in a thread."""
        endpoint = self._endpoints.get(inference_id)
        if endpoint is not None and time.monotonic() - self._looked_at < self.fresh_s:
            return endpoint
        return await asyncio.to_thread(self.get, inference_id)

    def find(self, inference_id: str) -> Endpoint | None:
        """Return an endpoint, None when there is none that can be read."""
        self.refresh()
        return self._endpoints.get(inference_id)

    def __len__(self) -> int:
        return len(self._endpoints)

    def cached(self, inference_id: str) -> Endpoint | None:
        """Return an endpoint as of the last look, without looking."""
        return self._endpoints.get(inference_id)

    def all(self) -> list[Endpoint]:
        """Return every endpoint."""
        self.refresh()
        return list(self._endpoints.values())

    @property
    def version(self) -> str | None:
        """Changes whenever an endpoint does; None before the first look."""
        return self._version

    def refresh(self, *, now: bool = False) -> None:
        """Look at the registry if the last look is no longer fresh: one cheap read while nothing has changed.

        Args:
            now: look in any case.

        Raises:
            redis.RedisError, OSError, BrokerUnavailable: nothing is known yet, and the registry cannot be reached.
        """
        if not now and time.monotonic() - self._looked_at < self.fresh_s:
            return
        with self._lock:
            if not now and time.monotonic() - self._looked_at < self.fresh_s:
                return
            self._looked_at = time.monotonic()
            try:
                self._look()
            except (redis.RedisError, OSError, BrokerUnavailable) as exc:
                if self._version is None:
                    self._looked_at = float("-inf")
                    raise
                logger.warning("endpoints cannot be looked up (%s): going on with those known", exc)

    def _look(self) -> None:
        version = self._registry.version()
        if version == self._version:
            return
        found = self._registry.read()
        for error in found.unreadable.values():
            logger.error("an endpoint cannot be read: %s", error)
        self._endpoints = {endpoint.inference_id: endpoint for endpoint in found.endpoints}
        self._version = version
        endpoints = list(self._endpoints.values())
        for endpoint in endpoints:
            unpark_changed(self._client, self._prefix, endpoint)
        self._on_change(endpoints)
