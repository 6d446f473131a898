"""Messages for endpoints that this worker does not know: those that nobody has, and those of another worker's file.

Nobody has the endpoint: another app named a wrong id, for which nobody rings, or it was deleted. Such queues are found
by their names and taken like any other, also by workers that were told their lanes: the task looks its endpoint up, and
answers that there is none. What only another worker's file has is left to that worker.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from typing import Any

import redis
import redis.asyncio

from penstock.config.names import (
    JOB_CLASSES,
    LANE_QUEUES,
    announced_key,
    operations_queue,
    parse_queue,
    queue_key,
    queue_name,
    unknown_sweep_key,
)
from penstock.config.redis import text
from penstock.workers.broker.bells import ring_async
from penstock.workers.broker.selection import Selection
from penstock.workers.broker.sweep import keep_looking
from penstock.workers.directory.announcements import ask
from penstock.workers.lua import async_script
from penstock.workers.runtime import Runtime

logger = logging.getLogger(__name__)

#: Seconds from one look to the next, of all workers together; a slow one, over very many keys, is made less often, so
#: that it takes so small a share of the time.
LOOK_S, SHARE = 2.0, 0.1
KEYS_AT_ONCE = 5000


class UnknownQueues:
    """The loop that looks for them: for those that nobody has, one worker at a time.

    Args:
        runtime: this process's.
        client: asyncio client of the broker.
        selection: which queues this worker takes from.
    """

    def __init__(self, runtime: Runtime, client: redis.asyncio.Redis, selection: Selection) -> None:
        self._runtime, self._client, self._selection = runtime, client, selection
        self._prefix = runtime.settings.key_prefix
        self._took_s = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        await keep_looking(self.look, LOOK_S / 2)

    async def look(self) -> None:
        """Leave to others what is theirs. Look, if it is this worker's turn, and have what is found taken."""
        await self._pass_over_foreign()
        turn = async_script(self._client, "broker/turn")
        period_ms = 1000 * max(LOOK_S, self._took_s / SHARE)
        found: list[str] = []
        if await turn(keys=[unknown_sweep_key(self._prefix)], args=[period_ms]):
            found = await self._find()
        # Until the next look: by then what was there is taken, and the endpoint may have been put.
        self._selection.adopt(found)
        if found:
            logger.info("Messages for unknown endpoints on %s", ", ".join(found))
            await ring_async(self._client, self._prefix, found)

    async def _pass_over_foreign(self) -> None:
        announced: Any = await self._client.zrange(announced_key(self._prefix), 0, -1)
        ids = [each for each in map(text, announced) if each and self._runtime.endpoints.cached(each) is None]
        queues = [queue_name(each, job_class) for each in ids for job_class in JOB_CLASSES]
        self._selection.pass_over([*queues, *map(operations_queue, ids)])

    async def _find(self) -> list[str]:
        began = time.monotonic()
        queues = [queue async for queue in self._lane_queues()]
        self._took_s = time.monotonic() - began
        return await self._unknown(queues)

    async def _lane_queues(self) -> Any:
        start = queue_key(self._prefix, LANE_QUEUES)
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
        async for key in self._client.scan_iter(pattern, count=KEYS_AT_ONCE, _type="list"):
            queue = text(key).removeprefix(self._prefix)
            if parse_queue(queue) is not None:
                yield queue

    async def _unknown(self, queues: Iterable[str]) -> list[str]:
        """Return those of the queues whose endpoint nobody has, by a look at the registry itself."""
        lanes = {queue: lane[0] for queue in queues if (lane := parse_queue(queue)) is not None}
        doubtful = sorted({each for each in lanes.values() if self._runtime.endpoints.cached(each) is None})
        if not doubtful:
            return []
        known = await asyncio.to_thread(ask, self._runtime.client, self._prefix, doubtful)
        return [queue for queue, each in lanes.items() if each in doubtful and each not in known.ids]
