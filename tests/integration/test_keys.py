"""The table of keys is true: after real work every key in Redis has an entry, the type it says, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import chain, chord

from penstock.config.names import (
    CHUNK_QUEUE,
    CHUNK_TASK,
    COMPLETE_TASK,
    EMBED_TASK,
    IMAGE_TASK,
    KeyName,
    find_key,
    queue_name,
)
from penstock.config.redis import connect
from support.task_bench import Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

PREFIX = "penstock:"
TYPES = {"zset": "sorted set"}


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, {"PENSTOCK_HEARTBEAT_S": "0.5"}, image_retry_after_s=1) as found:
        found.start_worker()
        yield found


@pytest.fixture
def client(stage: Stage) -> Iterator[redis.Redis]:
    with connect(stage.valkey.url, decode=True) as client:
        yield client


def keys_of(client: redis.Redis) -> dict[str, KeyName | None]:
    found: Any = client.keys("*")
    return {key: find_key(PREFIX, key) for key in found}


def check(client: redis.Redis, *, at_rest: bool = False) -> set[KeyName]:
    """Check all keys that there are now; returns their entries.

    Some are given their expiry a moment after they are made, so that is looked at when nothing is going on any more.
    """
    entries = keys_of(client)
    assert [key for key, entry in entries.items() if entry is None] == []
    for key, entry in entries.items():
        kind, ttl = str(client.type(key)), int(client.pttl(key))
        if entry is not None and kind != "none":  # it may have gone meanwhile
            assert TYPES.get(kind, kind) == entry.kind, key
            assert not at_rest or ttl == -2 or entry.end == "either" or (ttl > 0) == entry.expires, f"{key}: {ttl}"
    return {entry for entry in entries.values() if entry is not None}


def work(bench: TaskBench, stage: Stage) -> list[Any]:
    """Send a task of each kind, and compositions of them; returns their results."""
    bench.openai("text_embedding", "docs", stage.stand_in.url)
    bench.openai("chat_completion", "chat", stage.stand_in.url)
    bench.azure_images("pictures", stage.stand_in.url)
    task = bench.app.signature
    embeds = [task(EMBED_TASK, ([f"text {n}"], "docs"), queue=queue_name("docs")) for n in range(2)]
    last = task(EMBED_TASK, ("docs",), queue=queue_name("docs"))
    return [
        bench.app.send_task(COMPLETE_TASK, ("a prompt", "chat")),
        bench.app.send_task(IMAGE_TASK, ("a chair", "pictures")),
        chain(task(CHUNK_TASK, ("a text", "docs"), queue=CHUNK_QUEUE), last)(),
        chord(embeds, app=bench.app)(task("celery.accumulate")),
    ]


def test_after_real_work_every_key_has_an_entry_and_is_what_it_says(
    bench: TaskBench, stage: Stage, client: redis.Redis
) -> None:
    results = work(bench, stage)
    seen: set[KeyName] = set()

    def done() -> bool:
        seen.update(check(client))
        return all(result.ready() for result in results)

    wait_until(done, "all tasks are done", 40)
    assert all(result.successful() for result in results), [result.result for result in results]
    wait_until(lambda: not [each for each in check(client) if each.end == "emptied"], "what is emptied is gone", 20)
    check(client, at_rest=True)
    assert {each.pattern for each in seen} >= {
        "endpoints", "endpoints:version", "endpoints:salt", "lane:{{{quota}}}", "lane:{{{quota}}}:used",
        "stream:{task}", "image:{task}", "due", "due-messages", "celery-task-meta-{task}", "_kombu.binding.{exchange}",
    }  # fmt: skip
