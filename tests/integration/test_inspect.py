"""What ``celery inspect`` shows of our tasks in a real worker: the short form, never a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from penstock.config.names import BULK, EMBED_TASK, JOB_CLASSES, queue_key, queue_name
from penstock.tasks.backfill.dispatch.publisher import BatchPublisher
from penstock.tasks.backfill.plan.batch import Batch
from support.task_bench import Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

MARKER = "a text that nobody may see"
SHORT = "(docs, 3 texts)"
TEXTS = [f"{MARKER} {n}" for n in range(3)]


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, latency_ms=60_000) as found:
        # One task at a time is worked on; a second is taken and waits, reserved.
        found.start_worker(
            "-c", "1", "-Q", f"{queue_name('docs')},{queue_name('docs', BULK)}", "--prefetch-multiplier", "4"
        )
        yield found


@pytest.fixture
def docs(stage: Stage, bench: TaskBench) -> str:
    bench.openai("text_embedding", "docs", stage.stand_in.url, timeout_s=120)
    return "docs"


@pytest.fixture
def plain(stage: Stage, docs: str) -> Iterator[Celery]:
    """An application of somebody else's, which makes no short form of what it sends."""
    app = Celery("plain", broker=stage.valkey.url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": "penstock:"}
    yield app
    app.close()


def test_no_way_of_asking_shows_a_text(stage: Stage, bench: TaskBench, docs: str, plain: Celery) -> None:
    worker = stage.workers[0]

    def shown(command: str, *arguments: Any) -> list[Any]:
        answer = getattr(bench.app.control.inspect([worker.name], timeout=10), command)(*arguments) or {}
        found: Any = answer.get(worker.name, [])
        return found if isinstance(found, list) else list(found.values())

    first = bench.send("embed", TEXTS, docs)
    wait_until(lambda: shown("active"), "the first is worked on", 20)
    plain.send_task(EMBED_TASK, (TEXTS, docs), {"input_type": MARKER}, queue=queue_name(docs))
    publisher = BatchPublisher(bench.app, docs)
    publisher.send([Batch(0, "0b7d3c1e-8b1f-4b5e-9a35-3f1d6e7c2a90", TEXTS, [], [], 90, b"")])
    publisher.close()
    bench.app.send_task(EMBED_TASK, (TEXTS, docs), countdown=3600, queue=queue_name(docs))
    with stage.valkey.client() as client:
        queues = [queue_key("penstock:", queue_name(docs, each)) for each in JOB_CLASSES]
        wait_until(lambda: sum(map(client.llen, queues)) == 3, "the others wait in the broker", 20)
    # Nothing waits in a worker's memory, neither for a free place nor for its time.
    assert shown("reserved") == shown("scheduled") == []
    asked = {
        "active": shown("active"),
        "query_task": [info for _, info in shown("query_task", [first.id])],
    }
    for command, infos in asked.items():
        assert infos, command
        assert MARKER not in json.dumps(infos), command
        assert {(info["args"], info["kwargs"]) for info in infos} == {(SHORT, "{}")}, command
    assert MARKER not in worker.log
