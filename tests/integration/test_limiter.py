"""The limiter's scripts on a real server, on a clock that the test sets."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.registry import Registry
from penstock.config.endpoints.services import TaskType
from penstock.config.names import lane_key
from penstock.config.settings import load_settings
from penstock.workers.lanes.learning import MARGIN
from penstock.workers.lanes.limiter import (
    AHEAD_S,
    BULK_SHARE,
    PACE,
    SLACK_S,
    STRICT_BELOW,
    Limiter,
    Slot,
    UsageReport,
    change_lane,
    paced,
    unpark_changed,
)
from support.valkey import ValkeyServer

PREFIX = "limiter-test:"
T0 = 1_700_000_000_000.0
TEN_A_SECOND = RateLimit(600 / PACE)
NO_LIMIT = RateLimit()


class Clocked:
    """A limiter with a connection of its own whose clock stands where the test puts it, in ms since ``T0``."""

    def __init__(self, port: int) -> None:
        self.client = redis.asyncio.Redis(port=port)
        self.limiter = Limiter(self.client, PREFIX, clock_ms=T0)

    def at(self, ms: float) -> Limiter:
        self.limiter.clock_ms = T0 + ms
        return self.limiter

    async def reserve(self, ms: float, limit: RateLimit = TEN_A_SECOND, tokens: float = 1, **more: Any) -> Slot:
        return await self.at(ms).reserve(more.pop("quota", "q"), limit, tokens, **more)

    async def wait(self, ms: float, limit: RateLimit = TEN_A_SECOND, tokens: float = 1, **more: Any) -> float:
        """Return how many ms until the next place, granted or not."""
        return (await self.reserve(ms, limit, tokens, **more)).wait_s * 1000

    async def raw(self, quota: str = "q") -> dict[str, str]:
        found: Any = await self.client.hgetall(lane_key(PREFIX, quota))
        return {key.decode(): value.decode() for key, value in found.items()}


@pytest.fixture
async def clocked(valkey: ValkeyServer) -> AsyncIterator[Clocked]:
    made = Clocked(valkey.port)
    yield made
    await made.client.aclose()


@pytest.fixture
async def several(valkey: ValkeyServer) -> AsyncIterator[list[Clocked]]:
    """Limiters with a connection each, as processes have."""
    made = [Clocked(valkey.port) for _ in range(4)]
    yield made
    for each in made:
        await each.client.aclose()


# Pacing ------------------------------------------------------------------------------------------------------------


async def test_places_are_evenly_spaced_and_reserved_only_shortly_before_they_come(clocked: Clocked) -> None:
    first, second, third = [await clocked.reserve(0) for _ in range(3)]
    assert (first.granted, first.wait_s) == (True, 0.0)
    assert (second.granted, second.wait_s) == (True, pytest.approx(0.1, abs=1e-3))
    assert not third.granted
    assert third.wait_s == pytest.approx(0.2, abs=1e-3)
    assert third.wait_s > AHEAD_S


async def test_a_refused_reservation_changes_nothing(clocked: Clocked) -> None:
    for _ in range(2):
        await clocked.reserve(0)
    assert [await clocked.wait(0) for _ in range(5)] == [pytest.approx(200, abs=1)] * 5


async def test_a_rest_is_not_saved_up_for_a_burst(clocked: Clocked) -> None:
    await clocked.reserve(0)
    waits = [await clocked.wait(60_000) for _ in range(2)]
    assert waits == [0, pytest.approx(100, abs=1)]


async def test_a_fast_lane_catches_up_a_little_and_a_slow_one_never(clocked: Clocked) -> None:
    fast = RateLimit(6000 / PACE)  # 10 ms
    await clocked.reserve(0, fast, quota="fast")
    granted = [await clocked.wait(1000, fast, quota="fast") for _ in range(7)]
    assert granted.count(0) == 5, "at most four places late"
    await clocked.reserve(0)
    assert [await clocked.wait(1000) for _ in range(2)] == [0, pytest.approx(100, abs=1)]


async def places(limiters: list[Clocked], limit: RateLimit, seconds: int, tokens: float = 1) -> list[float]:
    """Let every limiter reserve whatever it can, every 20 ms. Returns the places' times in ms."""
    found = []
    for ms in range(0, seconds * 1000, 20):
        for each in limiters:
            while (slot := await each.reserve(ms, limit, tokens)).granted:
                found.append(ms + slot.wait_s * 1000)
    return found


@pytest.mark.parametrize(("per_minute", "window_s"), [(600, 1), (600, 10), (3000, 1)])
async def test_several_processes_use_the_whole_limit_together_and_never_more(
    several: list[Clocked], per_minute: int, window_s: int
) -> None:
    seconds = 12
    found = await places(several, RateLimit(per_minute), seconds)
    caught_up = math.ceil(SLACK_S * per_minute / 60) if per_minute >= STRICT_BELOW else 0
    assert len(found) - len(set(found)) < max(1, caught_up), "no place is given twice"
    whole = per_minute / 60 * seconds
    assert len([ms for ms in found if ms < seconds * 1000]) == pytest.approx(whole * PACE, abs=caught_up + 2)
    spans = [len([at for at in found if start <= at < start + window_s * 1000]) for start in found]
    assert max(spans) <= per_minute / 60 * window_s + caught_up


async def test_on_the_servers_own_clock_processes_that_race_are_exact_too(several: list[Clocked]) -> None:
    async def hammer(each: Clocked) -> list[float]:
        found = []
        each.limiter.clock_ms = 0
        while len(found) < 20:
            slot = await each.limiter.reserve("race", RateLimit(6000), 1)
            if slot.granted:
                found.append(time.monotonic() + slot.wait_s)
        return found

    begin = time.monotonic()
    found = [place for each in await asyncio.gather(*map(hammer, several)) for place in each]
    span = max(found) - begin
    assert len(found) <= 100 * PACE * span + 6, "the catching-up of 50 ms is all that may come on top"
    assert len(found) == 20 * len(several)


async def test_a_dead_workers_reservation_is_no_leak(clocked: Clocked) -> None:
    await clocked.reserve(0)
    await clocked.reserve(0)  # reserved, and never sent
    assert (await clocked.reserve(200)).granted


# Requests and tokens -----------------------------------------------------------------------------------------------

BOTH = RateLimit(600 / PACE, 60_000 / PACE)  # 100 ms a request, 1 ms a token


async def test_the_tighter_of_requests_and_tokens_decides(clocked: Clocked) -> None:
    await clocked.reserve(0, BOTH, 10)
    assert await clocked.wait(0, BOTH, 10) == pytest.approx(100, abs=1)
    await clocked.reserve(0, BOTH, 500, quota="fat")
    assert await clocked.wait(0, BOTH, 10, quota="fat") == pytest.approx(500, abs=1)


async def test_both_are_taken_or_neither(clocked: Clocked) -> None:
    await clocked.reserve(0, BOTH, 500)
    before = await clocked.raw()
    assert not (await clocked.reserve(200, BOTH, 1)).granted  # requests have a place, tokens have not
    assert (await clocked.raw())["requests.next_at"] == before["requests.next_at"]
    await clocked.reserve(0, RateLimit(60 / PACE, 60_000 / PACE), 10, quota="slow")
    before = await clocked.raw("slow")
    assert not (await clocked.reserve(200, RateLimit(60 / PACE, 60_000 / PACE), 10, quota="slow")).granted
    assert (await clocked.raw("slow"))["tokens.next_at"] == before["tokens.next_at"]


async def test_unequal_requests_use_the_whole_limit_of_tokens_and_never_more(several: list[Clocked]) -> None:
    limit = RateLimit(None, 60_000)
    spent: list[tuple[float, int]] = []
    sizes = [13, 400, 77, 250, 5]
    for ms in range(0, 12_000, 20):
        for each in several:
            while (slot := await each.reserve(ms, limit, sizes[len(spent) % 5])).granted:
                spent.append((ms + slot.wait_s * 1000, sizes[len(spent) % 5]))
    total = sum(tokens for at, tokens in spent if at < 12_000)
    assert total == pytest.approx(12_000 * PACE, rel=0.04)
    for start, _ in spent:
        inside = [tokens for at, tokens in spent if start <= at < start + 10_000]
        assert sum(inside[:-1]) <= 10_000, "in any 10 s, but for the one that ends it"


async def test_a_request_of_more_tokens_than_a_minute_holds_goes_when_nothing_is_owed_and_is_then_owed_in_full(
    clocked: Clocked,
) -> None:
    tiny = RateLimit(None, 60 / PACE)  # one a second
    assert (await clocked.reserve(0, tiny, 300)).granted
    assert await clocked.wait(0, tiny, 1) == pytest.approx(300_000, rel=1e-3)
    assert (await clocked.reserve(300_100, tiny, 300)).granted


async def test_a_limit_of_less_than_one_request_a_minute_works(clocked: Clocked) -> None:
    rare = RateLimit(0.5 / PACE)
    assert (await clocked.reserve(0, rare)).granted
    assert await clocked.wait(0, rare) == pytest.approx(120_000, rel=1e-3)
    assert (await clocked.reserve(120_100, rare)).granted


async def test_a_lane_without_limits_starts_gently_and_doubles_its_pace_each_second(clocked: Clocked) -> None:
    assert await clocked.wait(0, NO_LIMIT, 10**9) == 0
    began = {}
    for second in range(4):
        began[second] = sum([(await clocked.reserve(second * 1000 + ms, NO_LIMIT, ahead_s=0)).granted
                             for ms in range(1000)])  # fmt: skip
    assert began[0] == pytest.approx(100 * 1.44, rel=0.1)  # the mean of a second that doubles
    assert began[2] == pytest.approx(4 * began[0], rel=0.1)
    assert began[3] == pytest.approx(8 * began[0], rel=0.2)


async def test_an_idle_lane_without_limits_starts_gently_again(clocked: Clocked) -> None:
    for ms in range(0, 5000, 20):
        await clocked.reserve(ms, NO_LIMIT)
    assert [await clocked.wait(5000, NO_LIMIT) for _ in range(5)] == [0] * 5
    waits = [await clocked.wait(30_000, NO_LIMIT, ahead_s=10) for _ in range(20)]
    assert waits[-1] == pytest.approx(1000 / 100 * 15, rel=0.05), "a few may catch up"


async def test_a_stall_of_one_worker_moves_the_whole_schedule(clocked: Clocked) -> None:
    assert await clocked.wait(0) == 0
    late = UsageReport(late=30.0) + UsageReport(late=80.0)
    assert await clocked.wait(100, report=late) == pytest.approx(80)
    assert await clocked.wait(180) == pytest.approx(100)


async def test_what_was_reserved_counts_as_used_unless_it_is_given_back(clocked: Clocked) -> None:
    for _ in range(50):
        await clocked.reserve(0, NO_LIMIT, 7)
    await clocked.at(0).report("q", UsageReport(places=10, place_tokens=70))
    used: Any = await clocked.client.hgetall(lane_key(PREFIX, "q") + ":used")
    _, requests, tokens, *_ = map(float, used[str(int(T0 / 1000) % 64).encode()].split())
    assert 5 <= requests <= 40
    assert tokens == 7 * requests


async def test_tokens_are_settled_after_the_answer_within_reason(clocked: Clocked) -> None:
    limit = RateLimit(None, 60_000 / PACE)  # 1 ms a token
    await clocked.reserve(0, limit, 500)
    before = await clocked.wait(0, limit, 1)
    more = UsageReport(ok=1, tokens=700, correction=200.0)
    assert await clocked.wait(0, limit, 1, report=more) == pytest.approx(before + 200, abs=1)
    less = UsageReport(ok=1, tokens=10, correction=-150.0)
    assert await clocked.wait(0, limit, 1, report=less) == pytest.approx(before + 50, abs=1)
    absurd = UsageReport(ok=1, correction=-1e12)
    assert await clocked.wait(0, limit, 100, report=absurd) == 0
    burst = [await clocked.wait(0, limit, 500) for _ in range(4)]
    assert burst[-1] > 0, "a refund of whatever size is worth a second at most"


async def test_quotas_do_not_disturb_each_other(clocked: Clocked) -> None:
    await clocked.reserve(0, quota="a")
    await clocked.reserve(0, quota="a")
    assert await clocked.wait(0, quota="b") == 0


async def test_endpoints_of_one_account_and_model_share_one_quota(broker_url: str, home: Any, clocked: Clocked) -> None:
    settings = {"api_key": "sk-one-account", "model_id": "m", "rate_limit": {"requests_per_minute": 600}}

    def put(inference_id: str, **other: Any) -> str:
        body = {"service": "openai", "service_settings": {**settings, **other}}
        with redis.Redis.from_url(broker_url) as client:
            return Registry(client, load_settings()).put("text_embedding", inference_id, body).quota

    one, two = put("one"), put("two", dimensions=64)
    others = [put("three", model_id="n"), put("four", api_key="sk-another-account"), put("five", url="http://h/v1")]
    assert one == two
    assert len({one, *others}) == 4
    together = [await clocked.wait(0, quota=quota) for quota in (one, two, one)]
    assert together == [0, pytest.approx(100, abs=1), pytest.approx(200, abs=2)]


# Cool-downs --------------------------------------------------------------------------------------------------------


async def test_a_refusal_cools_the_lane_once_for_everybody_and_stale_news_changes_nothing(
    several: list[Clocked],
) -> None:
    a, b, *_ = several
    slots = [await a.reserve(0, NO_LIMIT) for _ in range(3)]
    assert await a.at(100).refuse("q", slots[0].seq, 5.0, "requests", NO_LIMIT)
    held = await b.reserve(200, NO_LIMIT)
    assert (held.granted, held.wait_s, held.cool_s) == (False, pytest.approx(4.9), pytest.approx(4.9))
    # The others that were in flight are refused too: they say nothing new, whatever they ask for.
    assert not await b.at(300).refuse("q", slots[1].seq, 60.0, "requests", NO_LIMIT)
    assert (await b.reserve(300, NO_LIMIT)).cool_s == pytest.approx(4.8)
    assert (await b.reserve(5200, NO_LIMIT)).granted
    # Even after the cool-down it is old news.
    assert not await a.at(5300).refuse("q", slots[2].seq, 60.0, "requests", NO_LIMIT)
    assert (await b.reserve(5400, NO_LIMIT)).cool_s == 0


async def test_a_place_reserved_after_the_cool_down_can_cool_the_lane_anew(clocked: Clocked) -> None:
    first = await clocked.reserve(0, NO_LIMIT)
    await clocked.at(10).refuse("q", first.seq, 1.0, "requests", NO_LIMIT)
    second = await clocked.reserve(1500, NO_LIMIT)
    assert second.seq == first.seq + 1
    assert await clocked.at(1600).refuse("q", second.seq, 2.0, "requests", NO_LIMIT)
    assert (await clocked.reserve(1600, NO_LIMIT)).cool_s >= 2.0


@pytest.mark.parametrize(("dimension", "tokens"), [("requests", 1), ("tokens", 250)])
async def test_a_refusal_that_comes_before_any_answer_teaches_no_absurd_limit(
    clocked: Clocked, dimension: Any, tokens: float
) -> None:
    slots = [await clocked.reserve(0, NO_LIMIT, tokens) for _ in range(32)]
    assert await clocked.at(20).refuse("q", slots[0].seq, 1.0, dimension, NO_LIMIT)
    await clocked.reserve(1100, NO_LIMIT, tokens)
    assert 20 < await clocked.wait(1100, NO_LIMIT, tokens) < 500, "less than half the pace, and not next to nothing"


async def test_a_lane_that_is_refused_again_at_once_rests_for_longer_each_time(clocked: Clocked) -> None:
    ms, rests = 0.0, []
    for _ in range(8):
        slot = await clocked.reserve(ms, NO_LIMIT)
        await clocked.at(ms + 10).refuse("q", slot.seq, 0.25, "", NO_LIMIT, named=False)
        rest = (await clocked.reserve(ms + 10, NO_LIMIT)).cool_s
        rests.append(rest)
        ms += 10 + rest * 1000
    assert rests == sorted(rests)
    assert 5 < rests[-1] <= 10


@pytest.mark.parametrize(
    ("limit", "tokens"),
    [(NO_LIMIT, 1), (RateLimit(60), 1), (RateLimit(None, 30_000), 1000), (RateLimit(6000, 1_000_000), 10)],
)
@pytest.mark.parametrize("served", [0, 1, 5])
async def test_a_named_delay_is_obeyed_as_named_however_often_it_is_named_in_a_row(
    clocked: Clocked, limit: RateLimit, tokens: float, served: int
) -> None:
    ms = 0.0
    for _ in range(served):
        while not (slot := await clocked.reserve(ms, limit, tokens, report=UsageReport(1, 1, tokens))).granted:
            ms += slot.wait_s * 1000
        ms += slot.wait_s * 1000 + 20
    waits = []
    for _ in range(6):
        asked = ms
        while not (slot := await clocked.reserve(ms, limit, tokens, ahead_s=0)).granted:
            ms += max(1.0, slot.wait_s * 1000)
        waits.append(ms - asked)
        await clocked.at(ms).refuse("q", slot.seq, 3.0, "", limit)
    assert waits[1:] == [pytest.approx(3000, abs=20)] * 5


async def test_a_named_delay_that_proves_too_short_again_and_again_is_lengthened_to_two_seconds_at_most(
    clocked: Clocked,
) -> None:
    ms, rests = 0.0, []
    for _ in range(8):
        slot = await clocked.reserve(ms, NO_LIMIT, ahead_s=10)
        ms += slot.wait_s * 1000
        await clocked.at(ms).refuse("q", slot.seq, 0.1, "", NO_LIMIT)
        rests.append((await clocked.reserve(ms, NO_LIMIT)).cool_s)
        ms += rests[-1] * 1000
    assert rests == [0.1, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


async def test_a_server_too_busy_cools_the_lane_and_teaches_nothing_of_its_limits(clocked: Clocked) -> None:
    ms = 0.0
    for limit, quota in ((NO_LIMIT, "free"), (TEN_A_SECOND, "limited")):
        for seq in range(20):
            slot = await clocked.reserve(ms, limit, quota=quota, report=UsageReport(ok=5, fresh=5, seq=seq))
            assert slot.granted
            assert await clocked.at(ms + 10).refuse(quota, slot.seq, 0.3, "capacity", limit, named=False)
            assert (await clocked.reserve(ms + 20, limit, quota=quota)).cool_s == pytest.approx(0.29)
            ms += 1000
        assert "requests.limit" not in await clocked.raw(quota)


async def test_failures_in_a_row_rest_the_lane_and_one_success_makes_it_forget(clocked: Clocked) -> None:
    for _ in range(11):
        await clocked.at(0).fail("q", 1.0, 12)
    assert (await clocked.reserve(0, NO_LIMIT)).granted
    await clocked.at(0).fail("q", 1.0, 12)
    assert (await clocked.reserve(0, NO_LIMIT)).cool_s == pytest.approx(1.0)
    for _ in range(24):
        await clocked.at(2000).fail("q", 1.0, 12)
    assert (await clocked.reserve(2000, NO_LIMIT)).cool_s == pytest.approx(1.0)
    await clocked.at(9000).report("q", UsageReport(ok=1))
    for _ in range(11):
        await clocked.at(9000).fail("q", 1.0, 12)
    assert (await clocked.reserve(9000, NO_LIMIT)).granted


# Learning ----------------------------------------------------------------------------------------------------------


async def test_a_lesson_that_another_worker_overtook_is_learnt_again_from_what_that_one_wrote(
    several: list[Clocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, *_ = several
    for n in range(20):
        await a.reserve(n * 100, report=UsageReport(1, 1, 1) if n else None)
    overtaken = []

    async def overtaking(quota: str, operation: str, arguments: Any) -> Any:
        if operation == "learn" and not overtaken:
            overtaken.append(arguments["version"])
            await b.client.hset(lane_key(PREFIX, "q"), mapping={"learnt_version": 5, "small_steps": 3})
        return await Limiter._run(a.limiter, quota, operation, arguments)

    monkeypatch.setattr(a.limiter, "_run", overtaking)
    assert await a.at(2000).refuse("q", 0, 0.5, "requests", TEN_A_SECOND, named=False)
    kept = await a.raw()
    assert (overtaken, kept["learnt_version"], kept["small_steps"]) == ([0], "6", "3")
    assert 0 < float(kept["requests.limit"]) < 600


async def test_a_lesson_that_is_overtaken_three_times_is_given_up(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    async def overtaking(quota: str, operation: str, arguments: Any) -> Any:
        if operation == "learn":
            written.append(arguments["version"])
            await clocked.client.hincrby(lane_key(PREFIX, "q"), "learnt_version", 1)
        return await Limiter._run(clocked.limiter, quota, operation, arguments)

    await clocked.reserve(0)
    monkeypatch.setattr(clocked.limiter, "_run", overtaking)
    assert await clocked.at(10).refuse("q", 0, 0.5, "requests", TEN_A_SECOND)
    assert written == [0, 1, 2]
    assert (await clocked.reserve(20)).cool_s == pytest.approx(0.49), "the lane cools all the same"
    assert "requests.limit" not in await clocked.raw()


async def test_answers_that_come_late_correct_a_rough_estimate(clocked: Clocked) -> None:
    for n in range(21):
        await clocked.reserve(n * 100, report=UsageReport(1, 1, 1) if n else None)
    await clocked.at(2000).refuse("q", 0, 7.5, "requests", TEN_A_SECOND)
    rough = await clocked.raw()
    await clocked.at(2100).report("q", UsageReport(ok=5, tokens=5, seq=0))  # sent before the refusal
    corrected = await clocked.raw()
    for name in ("requests.start", "requests.ceiling"):
        assert float(corrected[name]) == pytest.approx(float(rough[name]) * 1.25)
    assert corrected["requests.cut_at"] == rough["requests.cut_at"]


async def test_a_reservation_whose_report_teaches_takes_its_place_by_the_new_limit(clocked: Clocked) -> None:
    for n in range(21):
        await clocked.reserve(n * 100, report=UsageReport(1, 1, 1) if n else None)
    ms = 2000.0
    while ms < 8000:  # the server is closed
        slot = await clocked.reserve(ms, ahead_s=10)
        ms += slot.wait_s * 1000 + 10
        await clocked.at(ms).refuse("q", slot.seq, 0.25, "requests", TEN_A_SECOND, named=False)
    slot = await clocked.reserve(ms, ahead_s=10)
    ms += slot.wait_s * 1000 + 10
    before = await clocked.raw()
    granted = await clocked.reserve(ms, report=UsageReport(1, 1, 1, seq=slot.seq))
    kept = await clocked.raw()
    whole = (float(before["refused_at"]) - T0 + ms) / 2
    assert float(kept["requests.limit"]) == pytest.approx(20 / whole * 60_000 * MARGIN, rel=1e-4)
    assert granted.granted
    step = float(kept["requests.next_at"]) - T0 - ms - granted.wait_s * 1000
    assert step == pytest.approx(60_000 / float(kept["requests.limit"]), rel=1e-3)


async def test_the_ordinary_request_costs_one_round_trip(clocked: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    async def counted(quota: str, operation: str, arguments: Any) -> Any:
        calls.append(operation)
        return await Limiter._run(clocked.limiter, quota, operation, arguments)

    monkeypatch.setattr(clocked.limiter, "_run", counted)
    for n in range(50):
        await clocked.reserve(n * 100, report=UsageReport(1, 1, 1) if n else None)
    assert calls == ["reserve"] * 50


# Paused, parked, probing -------------------------------------------------------------------------------------------


def endpoint(inference_id: str = "docs", version: int = 3) -> Endpoint:
    return Endpoint(inference_id, TaskType.TEXT_EMBEDDING, "openai", {}, quota="q", version=version)


async def test_a_paused_lane_is_closed_for_everybody_until_it_is_resumed(
    several: list[Clocked], valkey: ValkeyServer
) -> None:
    with valkey.client() as operator:
        change_lane(operator, PREFIX, "q", "paused", "invoice in dispute")
        for each in several:
            slot = await each.reserve(0)
            assert (slot.granted, slot.closed, slot.state, slot.why) == (False, True, "paused", "invoice in dispute")
        change_lane(operator, PREFIX, "q", "resume")
    assert (await several[0].reserve(0)).granted
    assert (await several[1].reserve(0)).granted, "a lane that was paused by hand needs no probe"


async def test_parking_does_not_undo_an_operators_pause(clocked: Clocked, valkey: ValkeyServer) -> None:
    with valkey.client() as operator:
        change_lane(operator, PREFIX, "q", "paused", "by hand")
        await clocked.at(0).park("q", "no credit", "docs", 3)
        assert (await clocked.reserve(0)).why == "by hand"


async def test_a_resumed_lane_lets_one_request_through_and_the_rest_when_that_one_succeeds(
    several: list[Clocked], valkey: ValkeyServer
) -> None:
    a, b, *_ = several
    await a.at(0).park("q", "no credit", "docs", 3)
    assert (await b.reserve(0)).why == "no credit"
    with valkey.client() as operator:
        change_lane(operator, PREFIX, "q", "resume")
    probe = await a.reserve(1000)
    assert (probe.granted, probe.state) == (True, "probing")
    for each in several:
        waiting = await each.reserve(1200)
        assert (waiting.granted, waiting.closed) == (False, False)
        assert 0 < waiting.wait_s <= 0.5
    assert (await b.reserve(1300, report=UsageReport(ok=1))).granted
    assert (await a.reserve(1300)).state == ""


async def test_a_probe_that_is_never_heard_of_again_is_followed_by_another(
    clocked: Clocked, valkey: ValkeyServer
) -> None:
    await clocked.at(0).park("q", "no credit", "docs", 3)
    with valkey.client() as operator:
        change_lane(operator, PREFIX, "q", "resume")
    assert (await clocked.reserve(0)).granted
    assert not (await clocked.reserve(29_000)).granted
    assert (await clocked.reserve(30_100)).granted


async def test_a_probe_that_fails_parks_the_lane_again(clocked: Clocked, valkey: ValkeyServer) -> None:
    await clocked.at(0).park("q", "no credit", "docs", 3)
    with valkey.client() as operator:
        change_lane(operator, PREFIX, "q", "resume")
    await clocked.reserve(0)
    await clocked.at(100).park("q", "still no credit", "docs", 3)
    closed = await clocked.reserve(200)
    assert (closed.closed, closed.why) == (True, "still no credit")


async def test_a_changed_endpoint_unparks_the_lane_that_it_parked(clocked: Clocked, valkey: ValkeyServer) -> None:
    await clocked.at(0).park("q", "invalid key", "docs", 3)
    with valkey.client() as worker:
        unpark_changed(worker, PREFIX, endpoint("docs", 3))
        assert (await clocked.reserve(0)).closed, "it is the same as before"
        unpark_changed(worker, PREFIX, endpoint("other", 9))
        assert (await clocked.reserve(0)).closed, "another endpoint's change is no cure"
        unpark_changed(worker, PREFIX, endpoint("docs", 4))
        probe = await clocked.reserve(0)
        assert (probe.granted, probe.state) == (True, "probing")
        unpark_changed(worker, PREFIX, endpoint("docs", 4))  # the other workers see the change as well
        assert not (await clocked.reserve(100)).granted, "one probe is enough"


async def test_a_changed_endpoint_does_not_undo_an_operators_pause(clocked: Clocked, valkey: ValkeyServer) -> None:
    with valkey.client() as operator:
        change_lane(operator, PREFIX, "q", "paused", "by hand")
        unpark_changed(operator, PREFIX, endpoint("docs", 4))
    assert (await clocked.reserve(0)).state == "paused"


async def test_changes_of_state_are_published_for_all_workers(clocked: Clocked) -> None:
    async with clocked.client.pubsub(ignore_subscribe_messages=True) as news:
        await news.subscribe(f"{PREFIX}lane-news")
        await news.get_message(timeout=20)
        slot = await clocked.reserve(0)
        await clocked.at(0).refuse("q", slot.seq, 1.0, "", NO_LIMIT)
        await clocked.at(0).park("q", "no credit", "docs", 3)
        told = [await news.get_message(ignore_subscribe_messages=True, timeout=20) for _ in range(2)]
    assert [each["data"].decode() for each in told if each] == [lane_key(PREFIX, "q")] * 2


# Bulk, operations, memory ------------------------------------------------------------------------------------------


async def test_bulk_is_owed_its_share_of_the_time_that_interactive_work_takes(clocked: Clocked) -> None:
    for n in range(10):
        await clocked.reserve(n * 100, TEN_A_SECOND)
    owed = float((await clocked.raw())["bulk_credit_ms"])
    assert owed == pytest.approx(10 * 100 * BULK_SHARE, rel=0.01)
    await clocked.reserve(1100, TEN_A_SECOND, bulk=True)
    assert float((await clocked.raw())["bulk_credit_ms"]) == 0, "a place of 100 ms has paid it"


async def test_what_bulk_is_owed_has_an_upper_bound(clocked: Clocked) -> None:
    slow = RateLimit(0.01)
    for n in range(5):
        await clocked.reserve(n * 1e8, slow)
    assert float((await clocked.raw())["bulk_credit_ms"]) == 60_000


async def test_operations_in_flight_are_bounded_until_released_or_lapsed(clocked: Clocked) -> None:
    def operation(name: str, ms: float) -> Any:
        return clocked.reserve(ms, NO_LIMIT, 0, operations=2, lease=name, lease_s=60.0)

    assert (await operation("a", 0)).granted
    assert (await operation("b", 0)).granted
    full = await operation("c", 0)
    assert (full.granted, full.closed, full.wait_s) == (False, False, 1.0)
    assert (await operation("a", 30_000)).granted, "the same operation takes no second place"
    await clocked.at(31_000).release("q", "b")
    assert (await operation("c", 31_000)).granted
    assert not (await operation("d", 89_000)).granted
    assert (await operation("d", 90_001)).granted, "a dead worker's operation counts as gone after its lease"


async def test_state_is_forgotten_after_a_month_without_use(clocked: Clocked) -> None:
    await clocked.reserve(0)
    assert 29 * 86_400 < await clocked.client.ttl(lane_key(PREFIX, "q")) <= 30 * 86_400


# What the server says ----------------------------------------------------------------------------------------------


async def test_a_lower_limit_in_headers_is_obeyed_for_five_minutes_and_a_higher_one_never(clocked: Clocked) -> None:
    await clocked.at(0).report("q", UsageReport(), header_requests=60.0)
    await clocked.reserve(0)
    assert await clocked.wait(0) == pytest.approx(1000, abs=1)
    await clocked.at(2000).report("q", UsageReport(), header_requests=6_000_000.0)
    await clocked.reserve(2000)
    assert await clocked.wait(2000) == pytest.approx(100, abs=1)
    await clocked.at(4000).report("q", UsageReport(), header_requests=60.0)
    await clocked.reserve(310_000)
    assert await clocked.wait(310_000) == pytest.approx(100, abs=1)


@pytest.mark.parametrize("said", [0.0, -1.0, -1e9])
async def test_no_limit_in_headers_is_no_limit(clocked: Clocked, said: float) -> None:
    await clocked.at(0).report("q", UsageReport(), header_requests=said, header_tokens=said)
    await clocked.reserve(0)
    assert await clocked.wait(0) == pytest.approx(100, abs=1)


def test_the_pace_is_a_little_below_the_limit() -> None:
    assert [paced(limit) for limit in (None, 0.0, 600.0)] == [0.0, 0.0, pytest.approx(595.8)]
