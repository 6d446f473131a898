"""Which lanes there are: endpoints by id and their quotas, kept fresh from the registry, one a process."""

from __future__ import annotations

import logging
import threading
import time

import redis

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.errors import BrokerUnavailable, EndpointNotFound, PenstockError
from penstock.config.settings import Settings, load_settings
from penstock.workers.lanes.limiter import unpark_changed
from penstock.workers.lanes.window import forget_all

logger = logging.getLogger(__name__)

#: Seconds for which an answer is good; a changed endpoint is seen after at most this long.
FRESH_S = 1.0


class Directory:
    """Endpoints as this process knows them.

    Args:
        client: a client for the Redis that holds the registry.
        settings: for the key prefix and the secret key; read from the environment when None.
    """

    def __init__(self, client: redis.Redis, settings: Settings | None = None) -> None:
        settings = settings or load_settings()
        self._registry = Registry(client, settings)
        self._client, self._prefix = client, settings.key_prefix
        self._endpoints: dict[str, Endpoint] = {}
        self._version: str | None = None
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def get(self, inference_id: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            EndpointNotFound: there is none of this id, by a look at the registry itself.
        """
        self.refresh()
        endpoint = self._endpoints.get(inference_id)
        if endpoint is not None:
            return endpoint
        return self._registry.get(inference_id)

    def find(self, inference_id: str) -> Endpoint | None:
        """Return an endpoint, None when there is none that can be read."""
        self.refresh()
        return self._endpoints.get(inference_id)

    def all(self) -> list[Endpoint]:
        """Every endpoint."""
        self.refresh()
        return list(self._endpoints.values())

    @property
    def version(self) -> str | None:
        """Changes whenever an endpoint does."""
        return self._version

    def refresh(self) -> None:
        """Look at the registry if the last look is no longer fresh."""
        if time.monotonic() - self._looked < FRESH_S:
            return
        with self._lock:
            self._looked = time.monotonic()
            try:
                version = self._registry.version()
                if version == self._version:
                    return
                self._endpoints = {endpoint.inference_id: endpoint for endpoint in self._registry.list()}
            except EndpointNotFound:
                return  # deleted between two reads; the next look is right
            except (redis.RedisError, OSError, BrokerUnavailable) as exc:
                if self._version is None:
                    raise
                logger.warning("endpoints cannot be looked up (%s): going on with those known", exc)
                return
            except PenstockError as exc:
                logger.error("endpoints cannot be read: %s", exc)
            self._version = version
            for endpoint in self._endpoints.values():
                unpark_changed(self._client, self._prefix, endpoint)
            quotas = {endpoint.quota for endpoint in self._endpoints.values()}
            forget_all(keep=quotas.__contains__)
