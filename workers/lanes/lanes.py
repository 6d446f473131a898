"""The lanes of one worker process, and the news of them from the others."""

from __future__ import annotations

import asyncio

import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.names import lane_key, signal_channel
from penstock.workers.lanes.lane import Lane
from penstock.workers.lanes.limiter import Limiter


class Lanes:
    """The lanes of this process, by quota, and the news of them.

    Args:
        client: asyncio client of the Redis that holds the lanes.
        prefix: prefix of all keys.
    """

    def __init__(self, client: redis.asyncio.Redis, prefix: str) -> None:
        self._client, self._prefix = client, prefix
        self._limiter = Limiter(client, prefix)
        self._lanes: dict[str, Lane] = {}
        self._listener: asyncio.Task[None] | None = None

    def lane(self, endpoint: Endpoint) -> Lane:
        """Return the lane that an endpoint draws on."""
        if self._listener is None or self._listener.done():
            self._listener = asyncio.get_running_loop().create_task(self._listen(), name="lane-news")
        lane = self._lanes.get(endpoint.quota)
        if lane is None:
            lane = self._lanes[endpoint.quota] = Lane(self._limiter, endpoint.quota)
        lane.update_rate(endpoint)
        return lane

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(signal_channel(self._prefix))
                    async for message in pubsub.listen():
                        await self._tell(message["data"])
            except (redis.RedisError, OSError):
                await asyncio.sleep(1.0)

    async def _tell(self, key: bytes | str) -> None:
        name = key.decode() if isinstance(key, bytes) else key
        for quota, lane in list(self._lanes.items()):
            if lane_key(self._prefix, quota) == name:
                await lane.refresh()
