"""Interactive and bulk work on one lane, in virtual time: the real lanes and limiter, a clock that leaps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import TaskType
from penstock.workers.lanes.lane import Lane
from penstock.workers.lanes.limiter import BULK_SHARE
from support.servers import VirtualLimiter
from support.valkey import ValkeyServer
from support.virtual_time import in_virtual_time

SECONDS = 60.0
LATENCY_S = 0.05


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(valkey.socket)) as made:
        yield made


class Callers:
    """Callers of one quota of 600 requests a minute, over some workers."""

    def __init__(self, client: redis.Redis, workers: int = 1) -> None:
        limiter, quota = VirtualLimiter(client, "sharing:"), f"sharing-{uuid4()}"
        self.endpoint = Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, rate_limit=RateLimit(600), quota=quota)
        self.lanes = [Lane(limiter, quota) for _ in range(workers)]
        self.served: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {"interactive": [], "bulk": []}

    async def call(self, lane: Lane, kind: str) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        permit = await lane.slot(self.endpoint, lambda: 1, bulk=kind == "bulk")
        self.waits[kind].append(loop.time() - asked)
        await asyncio.sleep(LATENCY_S)
        lane.settle(permit, 4, 1, LATENCY_S)
        self.served[kind] += 1

    async def busy(self, lane: Lane, kind: str) -> None:
        while True:
            await self.call(lane, kind)

    async def run(self, **busy: int) -> None:
        """Have so many callers of each kind on each worker, who are never done."""
        tasks = [
            asyncio.create_task(self.busy(lane, kind))
            for lane in self.lanes
            for kind in busy
            for _ in range(busy[kind])
        ]
        await asyncio.sleep(SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("interactive", [1, 5, 64])
def test_interactive_work_has_nearly_all_and_bulk_its_share_however_much_interactive_work_there_is(
    client: redis.Redis, workers: int, interactive: int
) -> None:
    callers = Callers(client, workers)
    in_virtual_time(callers.run(interactive=interactive, bulk=3))
    total = sum(callers.served.values())
    assert total == pytest.approx(600 * 0.993, abs=5), "nothing of the quota is lost by sharing it"
    assert 0.7 * BULK_SHARE <= callers.served["bulk"] / total <= 1.5 * BULK_SHARE


def test_bulk_alone_has_the_whole_quota(client: redis.Redis) -> None:
    callers = Callers(client, 2)
    in_virtual_time(callers.run(bulk=5))
    assert callers.served["bulk"] == pytest.approx(600 * 0.993, abs=5)


def test_a_lone_interactive_call_on_a_lane_full_of_bulk_waits_for_about_one_place(client: redis.Redis) -> None:
    callers = Callers(client, 1)

    async def scene() -> None:
        bulk = [asyncio.create_task(callers.busy(callers.lanes[0], "bulk")) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(1.37)
            await callers.call(callers.lanes[0], "interactive")
        for task in bulk:
            task.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)

    in_virtual_time(scene())
    waits = sorted(callers.waits["interactive"])
    assert waits[len(waits) // 2] <= 0.11
    assert waits[-1] <= 0.35


def test_bulk_that_is_overtaken_again_and_again_is_served_within_a_dozen_places(client: redis.Redis) -> None:
    callers = Callers(client, 1)

    async def scene() -> None:
        flood = [asyncio.create_task(callers.busy(callers.lanes[0], "interactive")) for _ in range(20)]
        for _ in range(10):
            await callers.call(callers.lanes[0], "bulk")
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)

    in_virtual_time(scene())
    assert max(callers.waits["bulk"]) <= 3.5, "a dozen places, and the two seconds ahead that are given away"
