"""The step of a worker on RabbitMQ that takes up endpoints' queues as they come, and drops them as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from penstock.config.endpoints.registry import Registry
from penstock.config.settings import load_settings
from penstock.workers.broker.lane_watcher import LaneWatcher
from penstock.workers.runtime import close_runtime
from support.valkey import ValkeyServer
from support.waiting import wait_until


class Consumer:
    """Celery's consumer, as much of it as the step speaks to."""

    channel_errors = (KeyError,)

    def __init__(self, **controller: Any) -> None:
        self.controller = SimpleNamespace(**controller)
        self.queues: set[str] = set()
        self.waiting: dict[str, int] = {}
        self.timer = SimpleNamespace(call_repeatedly=lambda *_: SimpleNamespace(cancel=lambda: None))
        self.connection = SimpleNamespace(default_channel=self)

    def call_soon(self, call: Callable[[str], None], queue: str) -> None:
        call(queue)

    def add_task_queue(self, queue: str) -> None:
        self.queues.add(queue)

    def cancel_task_queue(self, queue: str) -> None:
        self.queues.remove(queue)

    def queue_declare(self, queue: str, passive: bool) -> Any:
        return SimpleNamespace(message_count=self.waiting[queue])


@pytest.fixture
def registry(valkey: ValkeyServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", "amqp://guest@127.0.0.1:1//")
    monkeypatch.setenv("PENSTOCK_RESULT_BACKEND", valkey.url)
    close_runtime()
    with redis.Redis(port=valkey.port) as client:
        yield Registry(client, load_settings())
    close_runtime()


def put(registry: Registry, inference_id: str) -> None:
    settings = {"api_key": "a-key-of-no-worth", "model_id": "m"}
    registry.put("text_embedding", inference_id, {"service": "openai", "service_settings": settings})


def test_queues_come_and_go_with_their_endpoints(registry: Registry) -> None:
    put(registry, "one")
    consumer = Consumer(excluded_queues=frozenset({"penstock.one.bulk"}))
    step = LaneWatcher(consumer)
    assert step.include_if(consumer)
    step.start(consumer)
    assert consumer.queues == {"penstock.one.interactive"}

    def look() -> set[str]:
        step.look(consumer)
        return consumer.queues

    put(registry, "two")
    both = {"penstock.two.interactive", "penstock.two.bulk"}
    wait_until(lambda: look() == {"penstock.one.interactive", *both}, "the new endpoint's are taken up")
    consumer.waiting["penstock.two.bulk"] = 1
    registry.delete("two")
    wait_until(lambda: look() == {"penstock.one.interactive", "penstock.two.bulk"}, "what is empty is dropped")
    consumer.waiting["penstock.two.bulk"] = 0
    assert look() == {"penstock.one.interactive"}


def test_a_worker_that_was_given_its_queues_keeps_to_them(registry: Registry) -> None:
    consumer = Consumer(chosen_queues=["mine"])
    assert not LaneWatcher(consumer).include_if(consumer)
