"""The lanes of one event loop, and the signals by which other processes tell what has become of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.names import lane_key, signal_channel
from penstock.config.redis import text
from penstock.workers.lanes.lane import Lane
from penstock.workers.lanes.limiter import Limiter
from penstock.workers.lanes.quota import QuotaTable


class Lanes:
    """The lanes of this loop, by quota.

    Args:
        client: asyncio client of the Redis that holds the lanes.
        prefix: prefix of all keys.
        quotas: what the process has learnt of each quota.
    """

    def __init__(self, client: redis.asyncio.Redis, prefix: str, quotas: QuotaTable) -> None:
        self._client, self._prefix, self._quotas = client, prefix, quotas
        self._limiter = Limiter(client, prefix)
        self._lanes: dict[str, Lane] = {}
        self._listener: asyncio.Task[None] | None = None

    def lane(self, endpoint: Endpoint) -> Lane:
        """Return the lane that an endpoint draws on."""
        if self._listener is None or self._listener.done():
            self._listener = asyncio.get_running_loop().create_task(self._listen(), name="lane-signals")
        lane = self._lanes.get(endpoint.quota)
        if lane is None:
            lane = self._lanes[endpoint.quota] = Lane(self._limiter, endpoint.quota)
        lane.stats = self._quotas.of(endpoint.quota)
        lane.update_rate(endpoint)
        return lane

    def evict(self, endpoints: Iterable[Endpoint]) -> None:
        """Drop the lanes of quotas that no endpoint draws on any more, once nobody waits in them."""
        kept = {endpoint.quota for endpoint in endpoints}
        for quota in [quota for quota, lane in self._lanes.items() if quota not in kept and lane.idle]:
            del self._lanes[quota]

    async def aclose(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(signal_channel(self._prefix))
                    async for message in pubsub.listen():
                        await self._on_signal(message["data"])
            except (redis.RedisError, OSError):
                await asyncio.sleep(1.0)

    async def _on_signal(self, key: bytes | str) -> None:
        name = text(key)
        for quota, lane in list(self._lanes.items()):
            if lane_key(self._prefix, quota) == name:
                await lane.refresh()
