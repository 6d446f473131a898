"""Leases on messages in flight: renewed, run out, handed back, acknowledged late; on a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu.utils.json import dumps, loads

from penstock.workers.broker.leases import Leases
from penstock.workers.lua import script
from support.valkey import ValkeyServer
from support.waiting import wait_until

PREFIX = "leases:"
INDEX, UNACKED, HOLDERS = f"{PREFIX}unacked_index", f"{PREFIX}unacked", f"{PREFIX}in-flight"
QUEUE = "penstock"
VISIBILITY_S = 20.0


class Broker:
    """The broker's side: leases messages as the taking script does, and looks at what is noted."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def take(self, *tags: str) -> None:
        for tag in tags:
            message = {"body": "", "headers": {"id": tag}, "properties": {"delivery_tag": tag}}
            self.lease(tag, dumps(message).encode())

    def lease(self, tag: str, raw: bytes) -> None:
        """Have something in flight, whatever it is."""
        self.client.zadd(INDEX, {tag: self.now()})
        self.client.hset(UNACKED, tag, b"[" + raw + b', "", "' + QUEUE.encode() + b'"]')
        self.client.hset(HOLDERS, tag, QUEUE)

    def now(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds) + float(micros) / 1e6

    def age(self, tag: str) -> float:
        """Seconds since a lease was renewed."""
        score: Any = self.client.zscore(INDEX, tag)
        return self.now() - float(score)

    def make_old(self, tag: str, seconds: float) -> float:
        """Make a lease so old; returns its score."""
        now, _ = self.client.time()
        self.client.zadd(INDEX, {tag: now - seconds})
        return float(now - seconds)

    def noted(self) -> list[str]:
        return sorted(tag.decode() for tag in self.client.zrange(INDEX, 0, -1))

    def waiting(self) -> list[Any]:
        """Messages on the queue, the next to be taken first."""
        return [loads(raw.decode()) for raw in reversed(self.client.lrange(f"{PREFIX}{QUEUE}", 0, -1))]

    def clean(self) -> bool:
        return not self.client.exists(INDEX, UNACKED, HOLDERS)


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Broker]:
    with valkey.client() as client:
        yield Broker(client)


@pytest.fixture
def leases(valkey: ValkeyServer) -> Iterator[Callable[..., Leases]]:
    """Make a process's leases; told to the broker by hand, ``flush``, unless they are started."""
    made: list[tuple[Leases, redis.Redis]] = []

    def make(
        heartbeat_s: float = 3600.0, port: int = valkey.port, on_end: Callable[[], object] = lambda: None
    ) -> Leases:
        client = redis.Redis(connection_pool=redis.ConnectionPool(port=port))  # it does not try again
        made.append((Leases(lambda: client, PREFIX, heartbeat_s, VISIBILITY_S, on_end), client))
        return made[-1][0]

    yield make
    for each, client in made:
        each.close()
        client.close()


def test_what_is_held_is_known_by_queue(leases: Callable[..., Leases]) -> None:
    held = leases()
    for tag, queue in (("a", "x"), ("b", "x"), ("c", "y")):
        held.hold(tag, queue)
    assert held.in_flight() == {"x": 2, "y": 1}
    assert ("a" in held.tags(), "z" in held.tags()) == (True, False)
    held.drop("a")
    assert sorted(held.tags()) == ["b", "c"]


def test_a_heart_beats_while_something_is_in_flight(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    held = leases(heartbeat_s=0.05)
    held.hold("a", QUEUE)
    broker.make_old("a", 100)
    held.start()
    wait_until(lambda: broker.age("a") < 10, "the lease is renewed")


def test_renewing_does_not_bring_back_what_is_gone(broker: Broker, leases: Callable[..., Leases]) -> None:
    held = leases()
    held.hold("a", QUEUE)  # another process has it by now
    held.renew()
    assert broker.noted() == []


def test_only_ones_own_leases_are_renewed(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a", "b")
    ours, theirs = leases(), leases()
    ours.hold("a", QUEUE)
    theirs.hold("b", QUEUE)
    for tag in "ab":
        broker.make_old(tag, 100)
    ours.renew()
    assert broker.age("a") < 10 < broker.age("b")


def test_an_acknowledged_message_leaves_nothing_behind(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    held = leases()
    held.hold("a", QUEUE)
    held.ack("a")
    assert "a" not in held.tags(), "its room is free at once"
    assert broker.noted() == ["a"], "nobody waits for the broker"
    held.flush()
    assert broker.clean()
    assert broker.waiting() == []


def test_what_has_ended_is_told_to_the_broker_at_once(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a", "b")
    ended = threading.Event()
    held = leases(on_end=ended.set)
    held.start()
    held.hold("a", QUEUE)
    held.hold("b", QUEUE)
    held.ack("a")
    assert ended.is_set()
    held.put_back("b")
    wait_until(broker.clean, "both are told")
    assert [message["headers"]["id"] for message in broker.waiting()] == ["b"]


def test_many_acknowledgements_are_one_round_trip(broker: Broker, leases: Callable[..., Leases]) -> None:
    tags = [f"t{n}" for n in range(100)]
    broker.take(*tags)
    held = leases()
    for tag in tags:
        held.hold(tag, QUEUE)
        held.ack(tag)
    broker.client.config_resetstat()
    held.flush()
    assert broker.client.info("commandstats")["cmdstat_exec"]["calls"] == 1
    assert broker.clean()


def test_all_that_is_held_goes_back_when_a_process_ends(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a", "b")
    held = leases()
    held.start()
    held.hold("a", QUEUE)
    held.hold("b", QUEUE)
    held.ack("a")
    held.close()
    assert [message["headers"]["id"] for message in broker.waiting()] == ["b"]
    assert broker.clean()


def test_a_message_handed_back_is_the_next_to_be_taken_and_says_so(
    broker: Broker, leases: Callable[..., Leases]
) -> None:
    broker.take("a")
    broker.client.lpush(f"{PREFIX}{QUEUE}", dumps({"headers": {"id": "later"}}))
    held = leases()
    held.hold("a", QUEUE)
    held.begin("a")
    held.put_back("a")
    held.flush()
    first, second = broker.waiting()
    assert (first["headers"]["id"], second["headers"]["id"]) == ("a", "later")
    assert first["headers"]["redelivered"] is True
    assert first["properties"]["delivery_info"]["redelivered"] is True
    assert broker.clean()
    assert broker.client.llen(f"{PREFIX}bell:{QUEUE}") == 1, "those who wait are told"
    assert broker.client.llen(f"{PREFIX}bell") == 1
    assert broker.client.zrange(f"{PREFIX}work:interactive", 0, -1) == [QUEUE.encode()]


def test_a_message_that_has_not_begun_goes_back_as_it_came(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    held = leases()
    held.hold("a", QUEUE)
    held.put_back("a")
    held.flush()
    (message,) = broker.waiting()
    assert "redelivered" not in message["headers"]
    assert "delivery_info" not in message["properties"]
    assert message["properties"]["delivery_tag"] != "a"


def test_a_message_is_handed_back_once(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    held, other = leases(), leases()
    for each in (held, other, held):
        each.put_back("a")
        each.flush()
    assert len(broker.waiting()) == 1


def test_what_nobody_renews_goes_back(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("old", "young")
    broker.make_old("old", VISIBILITY_S + 10)
    broker.make_old("young", VISIBILITY_S - 10)
    assert leases().restore_lapsed() == 1
    assert [message["headers"]["id"] for message in broker.waiting()] == ["old"]
    assert broker.waiting()[0]["headers"]["redelivered"] is True
    assert broker.noted() == ["young"]


def test_a_process_that_was_away_too_long_gives_up_what_another_puts_back(
    broker: Broker, leases: Callable[..., Leases]
) -> None:
    broker.take("a")
    held = leases()
    held.hold("a", QUEUE)
    broker.make_old("a", 100)
    assert held.restore_lapsed() == 1
    assert "a" not in held.tags()


def restore_of(client: redis.Redis, tag: str, score: float) -> int:
    """Put a lapsed message back as one who read its lease's score before."""
    raw: Any = client.hget(UNACKED, tag)
    keys = [INDEX, UNACKED, HOLDERS, f"{PREFIX}{QUEUE}"]
    return int(script(client, "broker/restore")(keys=keys, args=[tag, dumps(loads(raw.decode())[0]), repr(score)])[0])


def test_a_lease_renewed_in_between_is_not_taken_away(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    live = leases()
    live.hold("a", QUEUE)
    seen = broker.make_old("a", 100)
    live.renew()
    assert restore_of(broker.client, "a", seen) == 0  # it had looked before
    assert broker.noted() == ["a"]
    assert broker.waiting() == []
    assert restore_of(broker.client, "a", broker.make_old("a", 100)) == 1
    assert len(broker.waiting()) == 1


@pytest.mark.parametrize("score", [1_700_000_000.1234567, 1_763_683_123.000001, 1.0])
def test_scores_are_compared_exactly(broker: Broker, leases: Callable[..., Leases], score: float) -> None:
    broker.take("a")
    broker.client.zadd(INDEX, {"a": score})
    assert leases().restore_lapsed() == 1
    assert len(broker.waiting()) == 1


def test_a_message_of_which_only_the_lease_is_left_is_forgotten(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    broker.client.hdel(UNACKED, "a")
    held = leases()
    held.put_back("a")
    held.flush()
    assert broker.clean()


@pytest.mark.parametrize(
    "raw", [b"[]", b"{}", b"null", b"7", b'"text"', b"{cut", b"\xff\xfe", b"[" * 100_000, b'x", "", "other"', b"1, 2"]
)
def test_what_cannot_be_read_goes_back_as_it_is(broker: Broker, leases: Callable[..., Leases], raw: bytes) -> None:
    broker.take("good")
    broker.lease("bad", raw)
    for tag in ("bad", "good"):
        broker.make_old(tag, 100)
    assert leases().restore_lapsed() == 2
    waiting = broker.client.lrange(f"{PREFIX}{QUEUE}", 0, -1)
    assert raw in waiting or raw == b"{}", "only what can be read is marked as delivered again"
    assert len(waiting) == 2
    assert broker.clean()


def test_a_queue_whose_key_is_no_list_holds_up_no_other(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    broker.client.set(f"{PREFIX}{QUEUE}", "not a list")
    broker.client.zadd(INDEX, {"b": broker.now() - 100})
    broker.client.hset(UNACKED, "b", '[{"headers": {"id": "b"}}, "", "penstock.chunk"]')
    broker.make_old("a", 200)
    held = leases()
    assert held.restore_lapsed() == 1
    assert broker.client.llen(f"{PREFIX}penstock.chunk") == 1
    assert broker.noted() == ["a"], "it is kept, for when the key is one"
    assert broker.age("a") < 10
    broker.client.delete(f"{PREFIX}{QUEUE}")
    broker.make_old("a", 200)
    assert held.restore_lapsed() == 1
    assert [message["headers"]["id"] for message in broker.waiting()] == ["a"]


def test_racing_processes_put_a_lapsed_message_back_once(broker: Broker, leases: Callable[..., Leases]) -> None:
    tags = sorted(f"t{n}" for n in range(50))
    broker.take(*tags)
    for tag in tags:
        broker.make_old(tag, 100)
    processes = [leases() for _ in range(4)]
    threads = [threading.Thread(target=each.restore_lapsed) for each in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(message["headers"]["id"] for message in broker.waiting()) == tags
    assert broker.clean()


def test_an_acknowledgement_that_finds_no_broker_is_delivered_when_there_is_one_again(
    mortal: ValkeyServer, leases: Callable[..., Leases]
) -> None:
    with mortal.client() as client:
        broker = Broker(client)
        broker.take("a", "b")
        held = leases(heartbeat_s=0.05, port=mortal.port)
        held.hold("a", QUEUE)
        held.hold("b", QUEUE)
        held.start()
        mortal.kill()
        held.ack("a")
        assert "a" not in held.tags()
        mortal.start()
        wait_until(lambda: broker_answers(client) and broker.noted() == ["b"], "the acknowledgement arrives")
        assert client.hkeys(UNACKED) == [b"b"]


def broker_answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_message_handed_back_without_a_broker_is_at_least_let_go(
    mortal: ValkeyServer, leases: Callable[..., Leases]
) -> None:
    with mortal.client() as client:
        broker = Broker(client)
        broker.take("a")
        held = leases(port=mortal.port)
        held.hold("a", QUEUE)
        mortal.kill()
        held.put_back("a")
        assert "a" not in held.tags()
        with pytest.raises(redis.ConnectionError):
            held.flush()
        mortal.start()
        held.flush()
        assert [message["headers"]["id"] for message in broker.waiting()] == ["a"], "told when there is a broker again"


def test_many_messages_go_back_in_one_call_so_that_leases_are_renewed_meanwhile(
    broker: Broker, leases: Callable[..., Leases], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = leases()
    tags = [f"m{n}" for n in range(60)]
    for tag in tags:
        broker.take(tag)
        held.hold(tag, QUEUE)
    for tag in tags:
        held.put_back(tag)

    def calls() -> int:
        return int(broker.client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

    before = calls()
    held.flush()
    assert calls() - before <= 4, "one puts them back, one rings; each may have to be loaded first"
    assert broker.client.llen(f"{PREFIX}{QUEUE}") == 60
