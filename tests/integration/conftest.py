"""Fixtures of the integration tier."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.harness import Harness
from support.plant import Plant
from support.task_bench import Stage, TaskBench, open_bench
from support.valkey import ValkeyServer
from support.worker import Worker

_names = itertools.count()


@pytest.fixture(scope="session")
def pool_app(valkey_server: ValkeyServer) -> Iterator[ModuleType]:
    """The module ``support.pool_app``, its app on this test process's server."""
    os.environ["POOL_BROKER_URL"] = valkey_server.url
    module = importlib.import_module("support.pool_app")
    yield module
    module.app.backend.result_consumer.stop()
    module.app.close()
    module.memory.close()


@pytest.fixture
def plant(valkey: ValkeyServer, broker_url: str, home: Path) -> Iterator[Plant]:
    """A broker, for workers of ``support.feeder_app``."""
    with valkey.client() as client:
        made = Plant(client)
        yield made
        made.close()


@pytest.fixture
def bench(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskBench]:
    """A bench on the stage of the test's module, which is as usual at first."""
    with open_bench(stage, monkeypatch) as found:
        yield found


@pytest.fixture
def chat(stage: Stage, bench: TaskBench) -> str:
    """A ``chat_completion`` endpoint with a lane of its own."""
    name = f"chat-{next(_names)}"
    bench.openai("chat_completion", name, stage.stand_in.url, model=name)
    return name


@pytest.fixture
def plain(stage: Stage, bench: TaskBench) -> str:
    """A ``completion`` endpoint with a lane of its own."""
    name = f"plain-{next(_names)}"
    bench.openai("completion", name, stage.stand_in.url, model=name)
    return name


@pytest.fixture
def pool_worker(pool_app: ModuleType, valkey: ValkeyServer, harness: Harness) -> Callable[..., Worker]:
    """Start workers of ``pool_app``: ``pool_worker("-c", "4", POOL_SOFT="2")``."""

    def start(*args: str, **env: Any) -> Worker:
        return harness.start_workers(app="support.pool_app", args=args, POOL_BROKER_URL=valkey.url, **env)[0]

    return start
