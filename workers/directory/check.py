"""What a process asks before it sends a task: does anybody know the endpoint? One cheap read, and mostly none."""

from __future__ import annotations

import time

import redis

from penstock.config.endpoints.near import not_found
from penstock.config.redis import connect
from penstock.workers.directory.announcements import all_ids, ask

#: Seconds for which it is remembered that an endpoint is known; that nobody could tell; that the registry is away.
KNOWN_S, UNSURE_S, AWAY_S = 30.0, 1.0, 5.0
#: Seconds to wait for the registry: who cannot be told sends the task all the same.
TIMEOUT_S = 2.0
_MOST_IDS = 10_000


class SenderCheck:
    """Refuses what nobody can do, before it is sent.

    Args:
        url: of the Redis that holds the registry.
        prefix: prefix of all keys.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix
        self._client: redis.Redis | None = None
        self._passed_until: dict[str, float] = {}
        self._away_until = float("-inf")

    def refuse_unknown(self, inference_id: str) -> None:
        """Return where the endpoint is known, or may be.

        Raises:
            EndpointNotFound: the registry can be read, a worker is alive, and neither knows the id.
        """
        now = time.monotonic()
        if now < self._away_until or now < self._passed_until.get(inference_id, now):
            return
        try:
            known = ask(self._connected(), self._prefix, [inference_id])
            if known.lacks(inference_id):
                raise not_found(inference_id, all_ids(self._connected(), self._prefix))
        except (redis.RedisError, OSError):
            self._away_until = time.monotonic() + AWAY_S
            return
        if len(self._passed_until) >= _MOST_IDS:
            self._passed_until.clear()
        self._passed_until[inference_id] = now + (KNOWN_S if inference_id in known.ids else UNSURE_S)

    def no_worker_alive(self) -> bool:
        """Whether it is certain that no worker is alive."""
        try:
            return not ask(self._connected(), self._prefix, []).worker_alive
        except (redis.RedisError, OSError):
            return False

    def _connected(self) -> redis.Redis:
        if self._client is None:
            self._client = connect(self._url, timeout_s=TIMEOUT_S)
        return self._client
