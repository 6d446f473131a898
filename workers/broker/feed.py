"""Takes messages of lanes that may send, and hands them on: a loop of its own, beside the tasks.

It takes no more than the pool has free places and, of each lane, no more than its window; several messages a script
call. With nothing to do it waits on a bell; what nobody rang for is found within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import redis
import redis.asyncio

from penstock.config.errors import PenstockError
from penstock.config.names import (
    BULK,
    INTERACTIVE,
    LANE_QUEUES,
    SUSPECTS_CLASS,
    endpoint_quotas_key,
    lane_key,
    parse_queue,
    suspects_queue,
    work_key,
)
from penstock.config.redis import text
from penstock.workers.broker.bells import bells
from penstock.workers.broker.leases import Leases
from penstock.workers.broker.message import Taken
from penstock.workers.broker.selection import Selection
from penstock.workers.broker.suspects import SuspectsTurn
from penstock.workers.lua import async_script
from penstock.workers.pool.loop import heed_cancellation
from penstock.workers.runtime import Runtime

logger = logging.getLogger(__name__)

#: How far ahead of its slot a message may be taken, in ms, beside the time that the broker takes to answer. Bulk is
#: kept short, so that interactive work that comes waits behind little of it.
HORIZON_MS = {BULK: 150, INTERACTIVE: 1000}
#: Seconds for which a bell is waited for, and after which queues are looked at that nobody rang for.
IDLE_S = 1.0
#: Seconds to wait where messages are ready that this worker may not take now: its window of their lane is full.
FULL_S = 0.02
#: Seconds for which nothing is done after a take that left nothing: two threads that want to run hold each other up.
BEGIN_S = 0.002
#: Messages taken in one script call, and those of a queue of which none is in flight yet, by class.
AT_ONCE = 64
FIRST_MESSAGES = {BULK: 4, INTERACTIVE: 64}


class MessageFeed:
    """The loop.

    Args:
        runtime: this process's.
        client: asyncio client of the broker, for scripts.
        leases: of this process.
        selection: which queues are served.
        limit: tells how many messages the pool takes at a time.
        deliver: is given the messages of a take, on the event loop.
    """

    def __init__(
        self,
        runtime: Runtime,
        client: redis.asyncio.Redis,
        leases: Leases,
        selection: Selection,
        limit: Callable[[], int],
        deliver: Callable[[Sequence[Taken]], None],
    ) -> None:
        self.suspects_turn = SuspectsTurn(client, runtime.settings.key_prefix, selection, leases.__len__, self.wake)
        self._runtime, self._client, self._leases = runtime, client, leases
        self._selection, self._limit, self._deliver = selection, limit, deliver
        self._prefix = runtime.settings.key_prefix
        self._script = async_script(client, "broker/take")
        self._run_id = uuid4().hex
        self._takes = 0
        self._rtt_ms = 0.0
        self._wake = asyncio.Event()
        self._bell: asyncio.Task[Any] | None = None
        self._away = self._stopping = False

    def wake(self) -> None:
        """Say that there is room again, or a message. On the event loop."""
        self._wake.set()

    def begin(self) -> None:
        """Have ``run`` take messages until it is told to stop; a feed may begin again."""
        self._stopping = False

    def stop(self) -> None:
        """Take no more. ``run`` ends soon; what is just being taken goes back. On the event loop."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Take and deliver until told to stop. A broker that is away is waited for."""
        try:
            while not self._stopping:
                try:
                    await self._turn()
                    heed_cancellation()
                    if self._away:
                        logger.info("the broker is back")
                    self._away = False
                except (PenstockError, redis.RedisError, OSError) as exc:
                    if not self._away:
                        logger.warning("the broker is away (%s); waiting for it", exc)
                    self._away = True
                    self._bell = None
                    await asyncio.sleep(0.5)
        finally:
            if self._bell is not None:
                self._bell.cancel()
                with contextlib.suppress(asyncio.CancelledError, redis.RedisError, OSError):
                    await self._bell

    async def _turn(self) -> None:
        self._wake.clear()
        if self.suspects_turn.mine:
            await self._run_alone()
            return
        room = min(self._limit() - len(self._leases), AT_ONCE)
        if room <= 0:
            await self._wait(IDLE_S)
            return
        taken, wait_ms = await self._take(self._usual(room))
        self._hand_on(taken)
        if len(taken) == room or (taken and wait_ms == 0):  # more may be ready
            await asyncio.sleep(0)  # what was taken begins before more is taken
            return
        if taken:  # the worker's own thread is to have it begun before this one goes on
            await asyncio.sleep(BEGIN_S)
        if wait_ms < 0:
            await self._wait(IDLE_S, listen=True)
        else:
            await self._wait(wait_ms / 1000 or FULL_S, listen=True)

    async def _run_alone(self) -> None:
        """Take a suspect, when nothing else is in flight."""
        if len(self._leases):
            await self._wait(IDLE_S)
            return
        taken: list[Taken] = []
        if self.suspects_turn.goes_on():
            taken, _ = await self._take(self._suspects())
        if taken:
            self._hand_on(taken)
        else:
            self.suspects_turn.end()

    def _hand_on(self, taken: Sequence[Taken]) -> None:
        for each in taken:
            self._leases.hold(each.tag, each.queue)
        if self._stopping:
            for each in taken:
                self._leases.put_back(each.tag)
        elif taken:
            self._deliver(taken)

    # Taking -----------------------------------------------------------------------------------------

    async def _take(self, asked: dict[str, Any]) -> tuple[list[Taken], float]:
        """Return what was taken, and the ms until more may be ready: below 0 when nothing waits."""
        self._takes += 1
        asked |= {
            "prefix": self._prefix,
            "lane_queue": LANE_QUEUES,
            "lane": lane_key(self._prefix, "%s"),
            "tag": f"{self._run_id}-{self._takes}-",
        }
        keys = [*self._leases.keys, endpoint_quotas_key(self._prefix)]
        keys += [work_key(self._prefix, each) for each in asked.pop("classes")]
        began = time.perf_counter()
        answer: Any = await self._script(keys=keys, args=[json.dumps(asked)])
        took_ms = (time.perf_counter() - began) * 1000
        self._rtt_ms += (min(took_ms, 2000.0) - self._rtt_ms) * 0.1
        wait, *rows = answer
        taken = [Taken(text(tag), text(queue), raw) for tag, queue, raw in zip(*[iter(rows)] * 3, strict=True)]
        return taken, float(wait)

    def _usual(self, room: int) -> dict[str, Any]:
        """Ask for messages of lanes that may send."""
        asked: dict[str, Any] = {
            "classes": (INTERACTIVE, BULK),
            "room": room,
            "horizon": {name: ms + 2 * self._rtt_ms for name, ms in HORIZON_MS.items()},
            "allowance": FIRST_MESSAGES,
            "allowances": self._allowances(),
        }
        only = self._selection.only()
        return asked if only is None else asked | {"only": _in_turn(only, self._takes)}

    def _suspects(self) -> dict[str, Any]:
        """Ask for one suspect; its task waits for its lane."""
        excluded = {suspects_queue(queue): -1 for queue in self._selection.excluded}
        asked = {"classes": (SUSPECTS_CLASS,), "room": 1, "horizon": {}, "allowance": {}, "allowances": excluded}
        only = self._selection.only()
        return asked if only is None else asked | {"only": [suspects_queue(queue) for queue in only]}

    def _allowances(self) -> dict[str, int]:
        """Return how many more messages may be taken of the queues that have some in flight; below 0: left out."""
        allowances = dict.fromkeys(self._selection.excluded, -1)
        endpoints = self._runtime.endpoints
        cap = share(self._limit(), len(endpoints))
        for queue, count in self._leases.in_flight().items():
            lane = parse_queue(queue)
            endpoint = endpoints.cached(lane[0]) if lane else None
            if lane is None or endpoint is None:
                continue
            window = self._runtime.quotas.of(endpoint.quota).window
            window.rtt_s = self._rtt_ms / 1000
            size = window.size_interactive(cap) if lane[1] == INTERACTIVE else window.size(cap)
            allowances.setdefault(queue, max(0, size - count))
        return allowances

    # Waiting ----------------------------------------------------------------------------------------

    async def _wait(self, seconds: float, *, listen: bool = False) -> None:
        """Wait for room, or for a bell where ``listen``, ``seconds`` at most."""
        heed_cancellation()
        if listen and self._bell is None:
            self._bell = asyncio.ensure_future(self._listen())
            self._bell.add_done_callback(lambda _: self.wake())
        if self._bell is None or not self._bell.done():  # one that rang meanwhile is heeded at once
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, IDLE_S)):
                    await self._wake.wait()
        if self._bell is not None and self._bell.done():
            bell, self._bell = self._bell, None
            bell.result()

    async def _listen(self) -> None:
        keys = bells(self._prefix, self._selection.only())
        if keys:
            await self._client.brpop(keys, timeout=IDLE_S)
        else:
            await asyncio.sleep(IDLE_S)


def share(limit: int, endpoints: int) -> int:
    """Most messages of one queue in flight: all the room, less a quarter kept for other lanes where there are some."""
    if limit <= 0:
        return 1_000_000
    return limit if endpoints <= 1 else max(1, limit - max(1, limit // 4))


def _in_turn(queues: Sequence[str], turn: int) -> list[str]:
    """Return bulk queues behind the others, and of each kind another one first at each turn."""
    bulk = [queue for queue in queues if queue.endswith(f".{BULK}")]
    others = [queue for queue in queues if not queue.endswith(f".{BULK}")]
    return [each[(n + turn) % len(each)] for each in (others, bulk) for n in range(len(each))]
