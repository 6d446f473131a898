"""Whose turn it is to run suspects: messages in flight at two deaths of their workers (``deaths``).

A suspect is run alone: the process whose turn it is takes no other message, lets end what it has in flight, then runs
one suspect after another, for a few seconds; then it serves its lanes again. One process at a time has the turn, an
idle one first, so that the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis.asyncio

from penstock.config.names import SUSPECTS_CLASS, origin_queue, queue_key, suspects_turn_key, work_key
from penstock.config.redis import text
from penstock.workers.broker.selection import Selection
from penstock.workers.lua import async_script

#: Seconds for which a turn lasts, not counting its last suspect; between two turns; and after which a busy process
#: takes one that no idle one has taken.
TURN_S, REST_S, PATIENCE_S = 10.0, 5.0, 3.0
#: Seconds after its last renewal at which the turn of a process that died is another's.
KEPT_S = 5.0
#: Queues with suspects that are looked at.
QUEUES_AT_ONCE = 100


class SuspectsTurn:
    """Whether it is this process's turn. On the event loop.

    Args:
        client: asyncio client of the broker.
        prefix: prefix of all keys.
        selection: which queues are served.
        in_flight: tells how many messages are.
        wake: is called when the turn has come.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        prefix: str,
        selection: Selection,
        in_flight: Callable[[], int],
        wake: Callable[[], object],
    ) -> None:
        self._client, self._prefix, self._selection = client, prefix, selection
        self._in_flight, self._wake = in_flight, wake
        self._key, self._me = suspects_turn_key(prefix), uuid4().hex
        self._seen_at: float | None = None
        self._rest_until = float("-inf")
        self._began_at: float | None = None
        self.mine = False

    async def look(self) -> None:
        """Keep the turn; or take it, where suspects wait and nobody has it. About once a second."""
        if self.mine:
            self.mine = await self._hold()
            return
        now = time.monotonic()
        if now < self._rest_until or not await self._waiting():
            self._seen_at = None
            return
        self._seen_at = self._seen_at or now
        if self._in_flight() and now - self._seen_at < PATIENCE_S:
            return
        if await self._hold():
            self.mine, self._began_at = True, None
            self._wake()

    async def _hold(self) -> bool:
        hold = async_script(self._client, "broker/hold")
        return bool(await hold(keys=[self._key], args=[self._me, KEPT_S * 1000]))

    def goes_on(self) -> bool:
        """Whether another suspect may be taken; the first call begins the turn's time."""
        now = time.monotonic()
        self._began_at = self._began_at or now
        return now - self._began_at < TURN_S

    def end(self) -> None:
        """Serve the lanes again. The turn is another's once it has run out."""
        self.mine, self._seen_at = False, None
        self._rest_until = time.monotonic() + REST_S

    async def _waiting(self) -> bool:
        """Whether suspects wait on a queue that is served here."""
        found: Any = await self._client.zrange(work_key(self._prefix, SUSPECTS_CLASS), 0, QUEUES_AT_ONCE - 1)
        queues = [queue for each in found if self._selection.serves(origin_queue(queue := text(each)))]
        return bool(queues) and bool(await self._client.exists(*(queue_key(self._prefix, queue) for queue in queues)))
