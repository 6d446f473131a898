"""Results read and written on an event loop, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from penstock.config.redis import connect_async
from penstock.workers.results.stored import AT_ONCE, StoredResults, Writing
from support.valkey import ValkeyServer


@pytest.fixture
async def results(valkey: ValkeyServer) -> AsyncIterator[StoredResults]:
    stored = StoredResults(connect_async(valkey.url))
    yield stored
    await stored.aclose()


def calls(valkey: ValkeyServer, command: str) -> int:
    with valkey.client() as client:
        stats: Any = client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def test_many_results_take_a_few_round_trips(results: StoredResults, valkey: ValkeyServer) -> None:
    await results.write(Writing("tests:first", b"loads the script", None))
    scripts, reads = calls(valkey, "evalsha"), calls(valkey, "mget")
    many = AT_ONCE * 3
    await asyncio.gather(*(results.write(Writing(f"r{n}", b"%d" % n, 60)) for n in range(many)))
    assert await asyncio.gather(*(results.read(f"r{n}") for n in range(many))) == [b"%d" % n for n in range(many)]
    assert calls(valkey, "evalsha") - scripts <= 4
    assert calls(valkey, "mget") - reads <= 4


async def test_a_result_is_kept_for_its_time_and_told_to_who_waits(
    results: StoredResults, valkey: ValkeyServer
) -> None:
    async with connect_async(valkey.url).pubsub() as waiting:
        await waiting.subscribe("a")
        await results.write(Writing("a", b"\x93vector", 60))
        await results.write(Writing("tests:b", b"for ever", None))
        await results.write(Writing("a", b"another", 60))
        told: list[bytes] = []
        while len(told) < 2:
            message = await waiting.get_message(ignore_subscribe_messages=True, timeout=5)
            told += [message["data"]] if message else []
    assert told == [b"\x93vector", b"another"]
    with valkey.client() as client:
        ttl: Any = client.ttl("a")
        assert 0 < ttl <= 60
        assert client.ttl("tests:b") == -1
    assert await results.read("nothing") is None


async def test_one_that_the_server_refuses_costs_no_other(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "some", "on", ">pw", "+@all", "~good*", "&*")
    stored = StoredResults(connect_async(valkey.url.replace("://", "://some:pw@")))
    keys = ["good1", "bad", "good2"]
    outcomes = await asyncio.gather(*(stored.write(Writing(key, b"v", 60)) for key in keys), return_exceptions=True)
    assert [type(each) for each in outcomes] == [type(None), redis.exceptions.NoPermissionError, type(None)]
    found = await asyncio.gather(*(stored.read(key) for key in keys), return_exceptions=True)
    assert [found[0], found[2]] == [b"v", b"v"]
    assert isinstance(found[1], redis.exceptions.NoPermissionError)
    await stored.aclose()


async def test_who_asked_in_vain_may_ask_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = ValkeyServer(tmp_path_factory.mktemp("v"))
    stored = StoredResults(connect_async(server.url))
    server.stop()
    with pytest.raises(redis.exceptions.ConnectionError):
        await stored.write(Writing("a", b"v", 60))
    server.start()
    await stored.write(Writing("a", b"v", 60))
    assert await stored.read("a") == b"v"
    await stored.aclose()
    server.stop()
