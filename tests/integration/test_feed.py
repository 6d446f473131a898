"""Taking: which queue a worker takes from, by its lane's state and its own room; on a real server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.utils.json import loads

from penstock.config.endpoints.registry import Registry
from penstock.config.names import LANE_QUEUES, endpoint_quotas_key, lane_key, operations_queue, work_key
from penstock.config.redis import connect_async
from penstock.config.settings import load_settings
from penstock.workers.broker.bells import ring
from penstock.workers.broker.feed import AT_ONCE, FIRST_MESSAGES, MessageFeed, share
from penstock.workers.broker.feeder import take_messages
from penstock.workers.broker.leases import Leases
from penstock.workers.broker.message import Taken
from penstock.workers.broker.selection import Selection
from penstock.workers.broker.sweep import Sweep
from penstock.workers.lanes.constants import FORMAT
from penstock.workers.lanes.limiter import change_lane
from penstock.workers.lanes.window import FIRST
from penstock.workers.runtime import runtime
from support.taking import Look, take
from support.valkey import ValkeyServer
from support.waiting import wait_until

PREFIX = "feed:"


def bulk(inference_id: str) -> str:
    return f"penstock.{inference_id}.bulk"


def interactive(inference_id: str) -> str:
    return f"penstock.{inference_id}.interactive"


class Lanes:
    """Queues, lanes and the taking script."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._numbers = count()

    def now_ms(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds) * 1000 + float(micros) / 1000

    def put(self, queue: str, messages: int = 1) -> list[bytes]:
        """Put messages on a queue and ring. Returns them."""
        made = [b'{"n": %d}' % next(self._numbers) for _ in range(messages)]
        self.client.lpush(f"{PREFIX}{queue}", *made)
        ring(self.client, PREFIX, [queue])
        return made

    def lane(self, name: str, **fields: Any) -> None:
        """Have an endpoint's lane; times are in ms from now."""
        now = self.now_ms()
        for field in ("cooldown_until", "requests.next_at", "tokens.next_at", "probe_until"):
            if field in fields:
                fields[field] = now + fields[field]
        self.client.hset(endpoint_quotas_key(PREFIX), name, f"quota-{name}")
        values: dict[Any, Any] = {"format": FORMAT, **fields}
        self.client.hset(lane_key(PREFIX, f"quota-{name}"), mapping=values)
        self.client.expire(lane_key(PREFIX, f"quota-{name}"), 60)

    def take(self, room: int = 64, **options: Any) -> Look:
        return take(self.client, PREFIX, room, **options)

    def waiting(self, queue: str) -> int:
        return int(self.client.llen(f"{PREFIX}{queue}"))  # type: ignore[arg-type]


@pytest.fixture
def lanes(valkey: ValkeyServer) -> Iterator[Lanes]:
    with valkey.client() as client:
        yield Lanes(client)


OPEN, SHUT = True, False


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(
    ("fields", "job_class", "taken", "wait_ms"),
    [
        ({}, "bulk", OPEN, None),
        ({}, "interactive", OPEN, None),
        ({"paused": 1}, "bulk", SHUT, None),
        ({"paused": 1}, "interactive", SHUT, None),
        ({"state": "parked"}, "bulk", SHUT, None),
        ({"state": "parked"}, "interactive", OPEN, None),  # it is told at once that the lane is parked
        ({"cooldown_until": 500}, "bulk", SHUT, 500),
        ({"cooldown_until": 500}, "interactive", SHUT, 500),
        ({"cooldown_until": -5000}, "bulk", OPEN, None),
        ({"state": "parked", "cooldown_until": 5000}, "interactive", OPEN, None),
        ({"state": "probing", "probe_until": 400}, "interactive", SHUT, 400),
        ({"state": "probing", "probe_until": -1}, "bulk", OPEN, None),
        ({"state": "parked", "paused": 1}, "interactive", SHUT, None),  # the operator knows: it waits
        # A newer version's: its fields may mean something else.
        ({"format": FORMAT + 1}, "bulk", SHUT, None),
        ({"format": FORMAT + 1}, "interactive", OPEN, None),  # it is told at once that this side is to be upgraded
        # Ahead of its schedule.
        ({"requests.next_at": 100}, "bulk", OPEN, None),
        ({"requests.next_at": 650}, "bulk", SHUT, 500),
        ({"requests.next_at": 350, "tokens.next_at": 1050}, "bulk", SHUT, 900),
        ({"requests.next_at": 650}, "interactive", OPEN, None),
        ({"tokens.next_at": 1700}, "interactive", SHUT, 700),
        # Bulk that was made to wait for interactive work may take that much earlier.
        ({"requests.next_at": 650, "bulk_credit_ms": 600}, "bulk", OPEN, None),
        ({"requests.next_at": 650, "bulk_credit_ms": 300}, "bulk", SHUT, 200),
        ({"tokens.next_at": 1700, "bulk_credit_ms": 60000}, "interactive", SHUT, 700),
    ],
)
def test_a_message_is_taken_when_its_lane_may_send(
    lanes: Lanes, fields: dict[str, Any], job_class: str, taken: bool, wait_ms: int | None, told: bool
) -> None:
    queue = f"{LANE_QUEUES}docs.{job_class}"
    (message,) = lanes.put(queue)
    lanes.lane("docs", **fields)
    look = lanes.take(only=[queue] if told else None)
    if taken:
        assert look.taken == [(queue, message)]
        assert lanes.client.zcard(work_key(PREFIX, job_class)) == (1 if told else 0)
        return
    assert look.taken == []
    longest = 1000 if wait_ms is None else wait_ms  # nobody knows how long: a look a second
    assert longest - 150 < look.wait_ms <= longest
    assert lanes.waiting(queue) == 1, "it waits in the broker"
    if not told:
        again = lanes.take()
        assert again.taken == [], "it is not looked at before its time"
        assert again.wait_ms <= look.wait_ms


def test_what_is_taken_is_noted_in_the_same_step_by_the_servers_clock(lanes: Lanes) -> None:
    (message,) = lanes.put(bulk("docs"))
    before = lanes.now_ms() / 1000
    (tag,) = lanes.take().tags
    leases: Any = lanes.client.zrange(f"{PREFIX}unacked_index", 0, -1, withscores=True)
    ((noted, score),) = leases
    assert noted.decode() == tag
    assert before - 1 <= score <= lanes.now_ms() / 1000 + 1
    kept, exchange, queue = loads(lanes.client.hget(f"{PREFIX}unacked", tag).decode())
    assert (kept, exchange, queue) == (loads(message.decode()), "", bulk("docs"))
    assert lanes.client.hget(f"{PREFIX}in-flight", tag) == bulk("docs").encode()
    assert lanes.waiting(bulk("docs")) == 0


def test_nothing_to_do_is_said_so(lanes: Lanes) -> None:
    assert lanes.take().wait_ms == -1
    assert lanes.take(only=[bulk("docs")]).wait_ms == -1


def test_a_closed_lane_holds_up_no_other(lanes: Lanes) -> None:
    lanes.put(bulk("cold"), 3)
    messages = lanes.put(bulk("warm"), 2)
    lanes.lane("cold", cooldown_until=60_000)
    lanes.lane("warm")
    look = lanes.take()
    assert look.taken == [(bulk("warm"), message) for message in messages]
    assert lanes.waiting(bulk("cold")) == 3
    assert 0 < look.wait_ms <= 1000, "a look a second, for somebody may resume it"


def test_the_wait_is_until_the_first_lane_with_something_to_do_opens(lanes: Lanes) -> None:
    for name, wait_ms in (("later", 900), ("soon", 300), ("empty", 50)):
        lanes.lane(name, cooldown_until=wait_ms)
        if name != "empty":
            lanes.put(bulk(name))
    lanes.lane("paused", paused=1)
    lanes.put(bulk("paused"))
    assert 200 < lanes.take().wait_ms <= 300
    assert 150 < lanes.take().wait_ms <= 300, "also where the next look is planned already"


def test_interactive_work_comes_before_bulk_and_operations_with_it(lanes: Lanes) -> None:
    for queue in (bulk("a"), "penstock", operations_queue("a"), interactive("a")):
        lanes.put(queue)
    assert lanes.take(room=3).queues == ["penstock", operations_queue("a"), interactive("a")]
    assert lanes.take(room=3).queues == [bulk("a")]


def test_operations_and_queues_without_a_lane_pass_whatever_the_lane_does(lanes: Lanes) -> None:
    lanes.lane("a", paused=1, cooldown_until=60_000)
    for queue in (operations_queue("a"), "penstock.chunk", bulk("no-such-endpoint")):
        lanes.put(queue)
    assert sorted(lanes.take().queues) == sorted([operations_queue("a"), "penstock.chunk", bulk("no-such-endpoint")])


def test_queues_have_their_turns(lanes: Lanes) -> None:
    for name in "abc":
        lanes.put(bulk(name), 4)
    taken = [queue for _ in range(12) for queue in lanes.take(room=1).queues]
    assert [Counter(taken[n : n + 3]) for n in range(0, 12, 3)] == [Counter(map(bulk, "abc"))] * 4


def test_messages_of_one_queue_come_in_order(lanes: Lanes) -> None:
    messages = lanes.put(bulk("docs"), 5)
    assert [lanes.take(room=1).taken[0][1] for _ in range(5)] == messages


def test_no_more_than_the_room_and_the_allowance_are_taken(lanes: Lanes) -> None:
    lanes.put(bulk("a"), 100)
    lanes.put(interactive("a"), 100)
    first = lanes.take()
    assert first.queues == [interactive("a")] * FIRST_MESSAGES["interactive"]
    held = {interactive("a"): 0}
    assert lanes.take(allowances=held).queues == [bulk("a")] * FIRST_MESSAGES["bulk"]
    assert lanes.take(allowances={**held, bulk("a"): 7}).queues == [bulk("a")] * 7
    assert lanes.take(room=2, allowances={**held, bulk("a"): 7}).queues == [bulk("a")] * 2
    none = lanes.take(allowances={**held, bulk("a"): 0})
    assert (none.taken, none.wait_ms) == ([], 0), "some are ready, but not for this worker now"


def test_what_a_worker_does_not_serve_is_left_and_does_not_keep_it_awake(lanes: Lanes) -> None:
    lanes.put(bulk("a"))
    look = lanes.take(allowances={bulk("a"): -1})
    assert (look.taken, look.wait_ms) == ([], -1)
    assert lanes.take().queues == [bulk("a")], "another worker's it is"


def test_many_queues_that_a_worker_may_not_take_from_hide_no_other(lanes: Lanes) -> None:
    full = [bulk(f"full-{n}") for n in range(200)]
    for queue in full:
        lanes.put(queue)
    lanes.put(bulk("free"))
    looks = [lanes.take(allowances=dict.fromkeys(full, 0)) for _ in range(5)]
    assert [queue for look in looks for queue in look.queues] == [bulk("free")]


@pytest.mark.parametrize("told", [False, True])
def test_a_key_of_another_type_harms_only_its_own_queue(lanes: Lanes, told: bool) -> None:
    lanes.client.set(f"{PREFIX}{bulk('wrong')}", "not a list")
    ring(lanes.client, PREFIX, [bulk("wrong")])
    lanes.put(bulk("right"))
    only = [bulk("wrong"), bulk("right")] if told else None
    assert lanes.take(only=only).queues == [bulk("right")]
    assert lanes.take(only=only).wait_ms == -1


def commands(client: redis.Redis, call: Callable[[], object]) -> int:
    """Count the commands that a call costs, those inside its script among them."""
    client.config_resetstat()
    call()
    stats: Any = client.info("commandstats")
    return sum(
        each["calls"] for name, each in stats.items() if name not in ("cmdstat_config|resetstat", "cmdstat_info")
    )


def test_a_take_costs_the_same_however_many_lanes_there_are(lanes: Lanes) -> None:
    costs = []
    for total in (10, 1000):
        lanes.client.flushdb()
        for n in range(total):
            lanes.lane(f"lane-{n}")
        for n in range(10):
            lanes.put(bulk(f"lane-{n}"))
        lanes.take(room=0)  # the script is known to the server
        costs.append(commands(lanes.client, lambda: lanes.take(room=64)))
        assert lanes.take().taken == []
    assert costs[0] == costs[1]


# What only the process knows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "endpoints", "most"),
    [(100, 1, 100), (100, 2, 75), (100, 3, 75), (4, 3, 3), (2, 3, 1), (1, 3, 1), (0, 9, 1_000_000)],
)
def test_one_lane_never_has_all_the_room_where_there_are_others(limit: int, endpoints: int, most: int) -> None:
    assert share(limit, endpoints) == most


def put(client: redis.Redis, inference_id: str, rpm: float | None = 600) -> str:
    """Put an endpoint with a quota of its own. Returns the quota's name."""
    settings = {"api_key": "a-key-of-no-worth", "model_id": inference_id, "rate_limit": {"requests_per_minute": rpm}}
    body = {"service": "openai", "service_settings": settings}
    return Registry(client, load_settings()).put("text_embedding", inference_id, body).quota


class Taker:
    """A worker's feed, with what it has taken; nothing is ever done with it unless the test does."""

    def __init__(self, valkey: ValkeyServer, client: redis.Redis, limit: int, selection: Selection) -> None:
        self.held: list[Taken] = []
        self.leases = Leases(valkey.client, load_settings().key_prefix, 3600.0, 20.0, self._ended)
        self.redis = connect_async(valkey.url)
        self.feed = MessageFeed(runtime(), self.redis, self.leases, selection, lambda: limit, self.held.extend)
        self.leases.start()
        self.loop = asyncio.get_running_loop()
        self.task = self.loop.create_task(
            take_messages(Sweep(runtime(), self.redis, selection, self.feed.suspects_turn), self.feed)
        )

    def _ended(self) -> None:
        self.loop.call_soon_threadsafe(self.feed.wake)

    @property
    def queues(self) -> list[str]:
        return [each.queue for each in self.held]

    async def until(self, predicate: Callable[[], object], reason: str, timeout: float = 10.0) -> None:
        await asyncio.to_thread(wait_until, predicate, reason, timeout)

    async def close(self) -> None:
        self.feed.stop()
        await asyncio.wait({self.task}, timeout=5)
        assert self.task.done(), "a feed that is stopped ends"
        await self.redis.aclose()
        self.leases.close()


Start = Callable[..., Awaitable[Taker]]


@pytest.fixture
async def start(valkey: ValkeyServer, home: Path, broker_url: str) -> AsyncIterator[Start]:
    """Start a feed: ``await start(limit=20, chosen=["penstock.docs.bulk"])``."""
    made: list[Taker] = []
    with valkey.client() as client:

        async def new(limit: int = 20, chosen: Sequence[str] | None = None, excluded: Sequence[str] = ()) -> Taker:
            selection = Selection(load_settings().key_prefix, chosen, excluded)
            made.append(Taker(valkey, client, limit, selection))
            return made[-1]

        yield new
        for each in made:
            await each.close()


def fill(client: redis.Redis, queue: str, messages: int, *, rings: bool = True) -> None:
    prefix = load_settings().key_prefix
    client.lpush(f"{prefix}{queue}", *[b'{"n": %d}' % n for n in range(messages)])
    if rings:
        ring(client, prefix, [queue])


async def test_a_worker_holds_its_window_of_a_lane_however_much_waits(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        window = runtime().quotas.of(put(client, "deep")).window
        window.rate, window.latency_s = 10.0, 0.1
        fill(client, bulk("deep"), 2000)
        taker = await start(limit=100)
        await taker.until(lambda: len(taker.held) >= window.size(100), "a window is taken")
        await asyncio.sleep(0.5)
        assert len(taker.held) == window.size(100) < 10
        key = f"{load_settings().key_prefix}{bulk('deep')}"
        assert client.llen(key) == 2000 - len(taker.held), "the rest waits in the broker"
        fill(client, interactive("deep"), 3)
        await taker.until(lambda: taker.queues.count(interactive("deep")) == 3, "each class has its own window")


async def test_a_worker_takes_no_more_than_it_has_room_for_and_goes_on_when_something_ends(
    start: Start, valkey: ValkeyServer
) -> None:
    with valkey.client() as client:
        put(client, "docs", None)
        fill(client, interactive("docs"), 50)
        taker = await start(limit=8)
        await taker.until(lambda: len(taker.held) == 8, "its room is full")
        await asyncio.sleep(0.3)
        assert len(taker.held) == 8
        taker.leases.ack(taker.held[0].tag)
        await taker.until(lambda: len(taker.held) == 9, "one more")


async def test_endpoints_of_one_quota_share_one_lane(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        settings = {"api_key": "a-key-of-no-worth", "model_id": "shared"}
        for inference_id, dimensions in (("small", 64), ("large", 256)):
            body = {"service": "openai", "service_settings": {**settings, "dimensions": dimensions}}
            quota = Registry(client, load_settings()).put("text_embedding", inference_id, body).quota
        change_lane(client, load_settings().key_prefix, quota, "paused", "for a test")
        put(client, "other")
        taker = await start()
        for name in ("small", "large", "other"):
            fill(client, bulk(name), 1)
        await taker.until(lambda: taker.held, "the other lane's is taken")
        assert taker.queues == [bulk("other")]


async def test_a_lane_that_cools_is_left_alone_and_the_others_have_its_room(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        cold, _ = put(client, "cold"), put(client, "warm", None)
        now = client.time()[0] * 1000  # type: ignore[index]
        lane = lane_key(load_settings().key_prefix, cold)
        client.hset(lane, mapping={"format": FORMAT, "cooldown_until": now + 60_000})
        client.expire(lane, 600)
        for name in ("cold", "warm"):
            fill(client, bulk(name), 30)
        taker = await start(limit=FIRST * 4 // 3)  # a quarter is kept for other lanes
        await taker.until(lambda: len(taker.held) == FIRST, "the warm lane's window")
        await asyncio.sleep(0.3)
        assert taker.queues == [bulk("warm")] * FIRST


async def test_a_paused_lane_is_taken_from_within_about_a_second_after_resume(
    start: Start, valkey: ValkeyServer
) -> None:
    with valkey.client() as client:
        prefix, quota = load_settings().key_prefix, put(client, "stopped")
        change_lane(client, prefix, quota, "paused", "for a test")
        fill(client, bulk("stopped"), 3)
        taker = await start()
        await asyncio.sleep(0.5)
        assert not taker.held
        change_lane(client, prefix, quota, "resume")
        await taker.until(lambda: taker.held, "a message is taken", 5)


async def test_a_message_that_nobody_rang_for_is_found(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        put(client, "quiet")
        taker = await start()
        await asyncio.sleep(0.3)
        for queue in (bulk("quiet"), interactive("quiet"), "penstock", "penstock.chunk"):
            fill(client, queue, 1, rings=False)
        await taker.until(lambda: len(taker.held) == 4, "all are taken", 5)


async def test_a_bell_that_rang_while_messages_were_taken_is_heeded(start: Start) -> None:
    taker = await start()
    feed = taker.feed
    taker.task.cancel()
    await asyncio.wait({taker.task})
    rang = asyncio.get_running_loop().create_future()
    rang.set_result(None)
    feed._bell = asyncio.ensure_future(rang)  # type: ignore[assignment]
    waiting = asyncio.ensure_future(feed._wait(60.0, listen=True))
    for _ in range(10):
        await asyncio.sleep(0)
    assert waiting.done(), "it looks again at once"
    assert feed._bell is None, "and the ring is used up"


async def test_chosen_queues_are_the_only_ones_and_have_their_turns(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        for name in "abcd":
            put(client, name, None)
            fill(client, bulk(name), 200, rings=False)
        taker = await start(limit=4, chosen=[f"{load_settings().key_prefix}{bulk(name)}" for name in "abc"])
        for done in range(60):
            await taker.until(lambda wanted=done: len(taker.held) > wanted, "another is taken")
            taker.leases.ack(taker.held[done].tag)
        assert set(taker.queues) == {bulk(name) for name in "abc"}
        assert min(Counter(taker.queues).values()) >= 10, "none of them starves"


async def test_excluded_queues_are_left_and_added_ones_taken(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        for name in "ab":
            put(client, name)
        selection = Selection(load_settings().key_prefix, None, [bulk("a")])
        taker = await start(excluded=[bulk("a")])
        assert selection.excluded == {bulk("a")}
        fill(client, bulk("a"), 1)
        fill(client, bulk("b"), 1)
        await taker.until(lambda: taker.queues == [bulk("b")], "only the other's")
        client.config_resetstat()
        await asyncio.sleep(1.0)
        scripts: Any = client.info("commandstats")
        assert scripts["cmdstat_evalsha"]["calls"] < 30, "what it does not serve keeps it not awake"
        assert taker.queues == [bulk("b")]
        taker.feed._selection.add(bulk("a"))
        await taker.until(lambda: bulk("a") in taker.queues, "added, it is served")


async def test_what_is_being_taken_when_a_feed_stops_goes_back(start: Start, valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        prefix = load_settings().key_prefix
        put(client, "docs", None)
        for _ in range(10):
            client.flushdb()
            put(client, "docs", None)
            fill(client, interactive("docs"), AT_ONCE * 3)
            taker = await start(limit=10_000)
            await asyncio.sleep(0.002)
            await taker.close()
            waiting = client.llen(f"{prefix}{interactive('docs')}")
            assert waiting == AT_ONCE * 3, "all are back on their queue"
            assert not client.exists(f"{prefix}unacked_index", f"{prefix}unacked", f"{prefix}in-flight")
