"""Endpoints on a stand-in, and tasks sent to real workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from support.app import close_app, own_app, put_endpoint
from support.harness import Harness, temporary_folder
from support.valkey import ValkeyServer
from support.worker import Worker

#: Leases short enough for a test, long enough for a busy machine.
SHORT_LEASES = {"PENSTOCK_VISIBILITY_TIMEOUT_S": "2", "PENSTOCK_HEARTBEAT_S": "0.5"}
#: What tests of answers begin with.
USUAL_CHAT: Mapping[str, Any] = {
    "answer_tokens": 12, "token_delay_ms": 0, "fault": {}, "errors": "openai", "refuse": "", "latency_ms": 0,
}  # fmt: skip


class TaskBench:
    """Puts endpoints and sends tasks on one broker; its app is its own, so that no test sees another's."""

    def __init__(self, broker_url: str, app: Any = None) -> None:
        self.broker_url = broker_url
        self.app = app or own_app("bench")

    def put(self, task_type: str, inference_id: str, service: str, /, **service_settings: Any) -> None:
        """Put an endpoint; ``rate_limit`` is none unless it is given."""
        settings = {"rate_limit": {"requests_per_minute": None}, **service_settings}
        task_settings = settings.pop("task_settings", {})
        chunking = settings.pop("chunking_settings", None)
        put_endpoint(self.broker_url, task_type, inference_id, service, settings, task_settings, chunking)

    def openai(self, task_type: str, inference_id: str, url: str, **more: Any) -> None:
        """Put an ``openai`` endpoint on a stand-in."""
        self.put(task_type, inference_id, "openai", model_id=more.pop("model", "m"), url=f"{url}/v1", **more)

    def azure_images(self, inference_id: str, url: str, **more: Any) -> None:
        """Put an endpoint whose images are submitted and polled."""
        own = {"url": url, "resource_name": "r", "deployment_id": "d", "api_version": "2023-06-01-preview"}
        self.put("image_generation", inference_id, "azureopenai", **{**own, **more})

    def send(self, name: str, *args: Any, **kwargs: Any) -> AsyncResult:
        """Send a task of ours."""
        return self.app.send_task(f"penstock.{name}", args=args, kwargs=kwargs)

    def close(self) -> None:
        close_app(self.app)


class Stage(Harness):
    """A broker, a stand-in and workers that several tests share; a bench to use them with."""

    def __init__(
        self,
        folder: Path,
        valkey: ValkeyServer,
        options: Mapping[str, Any],
        env: Mapping[str, str],
        usual: Mapping[str, Any],
    ) -> None:
        home = folder / "home"
        home.mkdir(mode=0o700)
        super().__init__(folder, {"PENSTOCK_BROKER_URL": valkey.url, "PENSTOCK_HOME": str(home), **env})
        self.valkey, self.usual = valkey, usual
        self.stand_in = self.start_stand_in(**options)

    def start_worker(self, *args: str) -> Worker:
        """Start a worker with Celery's arguments, and wait until it takes tasks."""
        return self.start_workers(args=args)[0]


@contextlib.contextmanager
def open_stage(
    valkey: ValkeyServer,
    env: Mapping[str, str] | None = None,
    usual: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Stage]:
    """Set a stage on an empty broker, without workers yet. ``usual``: the stand-in's settings when a test begins."""
    valkey.flush()
    with temporary_folder() as folder:
        stage = Stage(folder, valkey, options, env or {}, usual or {})
        try:
            yield stage
        finally:
            stage.close()


@contextlib.contextmanager
def open_bench(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskBench]:
    """Set the stand-in and the environment of one test to the stage's, and give it a bench."""
    if stage.usual:
        stage.stand_in.configure(**stage.usual)
    for name, value in stage.env.items():
        monkeypatch.setenv(name, value)
    bench = TaskBench(stage.valkey.url)
    # Our own app has the settings of the test that used it first; who reads by a task's id uses the bench's.
    monkeypatch.setattr("penstock.tasks.completion.streaming.app", bench.app)
    try:
        yield bench
    finally:
        bench.close()
