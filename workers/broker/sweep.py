"""What nobody rings for: messages that are due, those of publishers that ring no bell, endpoints that come and go.

A loop of its own, so that messages are taken meanwhile, however far away the broker is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.errors import PenstockError
from penstock.config.names import endpoint_quotas_key, suspects_queue, sweep_key
from penstock.workers.broker.bells import ring_async
from penstock.workers.broker.delayed import put_due
from penstock.workers.broker.selection import Selection, all_queues
from penstock.workers.broker.suspects import SuspectsTurn
from penstock.workers.lua import async_script
from penstock.workers.pool.loop import heed_cancellation
from penstock.workers.runtime import Runtime

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is due, and at all else.
DUE_S, LOOK_S = 0.25, 1.0
#: Seconds for which tasks trust what this loop has seen of the endpoints.
WATCHED_S = 5.0


class Sweep:
    """The loop.

    Args:
        runtime: this process's.
        client: asyncio client of the broker.
        selection: which queues are served.
        suspects_turn: is looked after.
    """

    def __init__(
        self, runtime: Runtime, client: redis.asyncio.Redis, selection: Selection, suspects_turn: SuspectsTurn
    ) -> None:
        self._suspects_turn = suspects_turn
        self._runtime, self._client, self._selection = runtime, client, selection
        self._prefix = runtime.settings.key_prefix
        self._mapped: str | None = None
        self._served: set[str] = set()
        self._looked_at = float("-inf")

    async def run(self) -> None:
        """Look until cancelled."""
        await keep_looking(self.look, DUE_S)

    async def look(self) -> None:
        """Look once, at what it is time for."""
        await put_due(self._client, self._prefix)
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        await self._suspects_turn.look()
        endpoints = await asyncio.to_thread(self._refresh)
        await self._map_quotas(endpoints)
        self._log_changes(self._selection.known(endpoints))
        # One worker a second looks for all of them.
        turn = async_script(self._client, "broker/turn")
        if await turn(keys=[sweep_key(self._prefix)], args=[LOOK_S * 900]):
            queues = all_queues(endpoints)
            await ring_async(self._client, self._prefix, [*queues, *map(suspects_queue, queues)])

    def _refresh(self) -> list[Endpoint]:
        known = self._runtime.endpoints
        known.fresh_s = WATCHED_S
        known.refresh(now=True)
        return known.all()

    async def _map_quotas(self, endpoints: Sequence[Endpoint]) -> None:
        """Write down which endpoint draws on which quota, for the taking script: the registry knows no file's."""
        version = self._runtime.endpoints.version
        if version == self._mapped:
            return
        quotas: Any = {endpoint.inference_id: endpoint.quota for endpoint in endpoints}
        if quotas:
            await self._client.hset(endpoint_quotas_key(self._prefix), mapping=quotas)
        self._mapped = version

    def _log_changes(self, queues: Sequence[str]) -> None:
        served = set(queues)
        for queue in sorted(served - self._served):
            logger.info("Started consuming from %s", queue)
        for queue in sorted(self._served - served):
            logger.info("Canceling queue %s", queue)
        self._served = served


async def keep_looking(look: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Look again and again, until cancelled. That the broker is away is said elsewhere.

    Args:
        look: looks once.
        pause_s: seconds between two looks.
    """
    while True:
        try:
            await look()
        except (PenstockError, redis.RedisError, OSError) as exc:
            logger.debug("the broker cannot be looked at (%s)", exc)
        heed_cancellation()
        await asyncio.sleep(pause_s)
