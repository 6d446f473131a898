"""Leases on messages in flight: renewed, run out, handed back, acknowledged late; on a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
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
QUEUE = "q"


class Broker:
    """The broker's side: takes messages as the transport's script does, and looks at what is noted."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def take(self, *tags: str) -> None:
        for tag in tags:
            message = {"body": "", "headers": {"id": tag}, "properties": {"delivery_tag": tag}}
            self.client.lpush(f"{PREFIX}{QUEUE}", dumps(message))
            keys = [INDEX, UNACKED, HOLDERS, f"{PREFIX}{QUEUE}", ""]
            assert script(self.client, "broker/take")(keys=keys, args=[0, 0, QUEUE, ""])[0] == 1

    def age(self, tag: str) -> float:
        """Seconds since a lease was renewed."""
        seconds, micros = self.client.time()
        score: Any = self.client.zscore(INDEX, tag)
        return float(seconds) + float(micros) / 1e6 - float(score)

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
    """Make a process's leases; renewed by hand unless ``heartbeat_s`` says otherwise."""
    made: list[tuple[Leases, redis.Redis]] = []

    def make(heartbeat_s: float = 3600.0, port: int = valkey.port) -> Leases:
        client = redis.Redis(connection_pool=redis.ConnectionPool(port=port))  # as kombu's: it does not try again
        made.append((Leases(lambda: client, PREFIX, heartbeat_s=heartbeat_s), client))
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
    assert (held.holds("a"), held.holds("z")) == (True, False)
    held.drop("a")
    assert sorted(held.tags()) == ["b", "c"]


def test_a_heart_beats_while_something_is_in_flight(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    held = leases(heartbeat_s=0.05)
    held.hold("a", QUEUE)
    broker.make_old("a", 100)
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
    assert broker.clean()
    assert broker.waiting() == []
    assert not held.holds("a")


def test_a_message_handed_back_is_the_next_to_be_taken_and_says_so(
    broker: Broker, leases: Callable[..., Leases]
) -> None:
    broker.take("a")
    broker.client.lpush(f"{PREFIX}{QUEUE}", dumps({"headers": {"id": "later"}}))
    held = leases()
    held.hold("a", QUEUE)
    held.put_back("a")
    first, second = broker.waiting()
    assert (first["headers"]["id"], second["headers"]["id"]) == ("a", "later")
    assert first["headers"]["redelivered"] is True
    assert first["properties"]["delivery_info"]["redelivered"] is True
    assert broker.clean()
    assert broker.client.llen(f"{PREFIX}bell:{QUEUE}") == 1, "those who wait are told"


def test_a_message_is_handed_back_once(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    held, other = leases(), leases()
    held.put_back("a")
    other.put_back("a")
    held.put_back("a")
    assert len(broker.waiting()) == 1


def test_a_lease_renewed_in_between_is_not_taken_away(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    live, other = leases(), leases()
    live.hold("a", QUEUE)
    seen = broker.make_old("a", 100)
    live.renew()
    other.put_back("a", seen)  # it had looked before
    assert broker.noted() == ["a"]
    assert broker.waiting() == []
    other.put_back("a", broker.make_old("a", 100))
    assert len(broker.waiting()) == 1


@pytest.mark.parametrize("score", [1_700_000_000.1234567, 1_763_683_123.000001, 1.0, 1e12])
def test_scores_are_compared_exactly(broker: Broker, leases: Callable[..., Leases], score: float) -> None:
    broker.take("a")
    broker.client.zadd(INDEX, {"a": score})
    ((_, seen),) = broker.client.zrange(INDEX, 0, -1, withscores=True)
    leases().put_back("a", seen)
    assert len(broker.waiting()) == 1


def test_a_message_of_which_only_the_lease_is_left_is_forgotten(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take("a")
    broker.client.hdel(UNACKED, "a")
    leases().put_back("a")
    assert broker.noted() == []


def test_racing_processes_put_a_lapsed_message_back_once(broker: Broker, leases: Callable[..., Leases]) -> None:
    broker.take(*(f"t{n}" for n in range(50)))
    seen = {f"t{n}": broker.make_old(f"t{n}", 100) for n in range(50)}
    processes = [leases() for _ in range(4)]

    def restore(each: Leases) -> None:
        for tag, score in seen.items():
            each.put_back(tag, score)

    threads = [threading.Thread(target=restore, args=(each,)) for each in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(message["headers"]["id"] for message in broker.waiting()) == sorted(seen)
    assert broker.clean()


@pytest.fixture
def mortal(folder: Path) -> Iterator[ValkeyServer]:
    """A broker to be killed, with an append-only file."""
    server = ValkeyServer(folder, persistent=True)
    yield server
    server.stop()


def test_an_acknowledgement_that_finds_no_broker_is_delivered_when_there_is_one_again(
    mortal: ValkeyServer, leases: Callable[..., Leases]
) -> None:
    with mortal.client() as client:
        broker = Broker(client)
        broker.take("a", "b")
        held = leases(heartbeat_s=0.05, port=mortal.port)
        held.hold("a", QUEUE)
        held.hold("b", QUEUE)
        mortal.kill()
        held.ack("a")
        assert not held.holds("a")
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
    held = leases(port=mortal.port)
    held.hold("a", QUEUE)
    mortal.kill()
    with pytest.raises(redis.ConnectionError):
        held.put_back("a")
    assert not held.holds("a"), "its lease runs out, and another worker puts it back"
