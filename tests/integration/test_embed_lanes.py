"""Lanes that are parked, paused, resumed and changed under ``embed`` calls, through a real worker and the command."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from celery.result import AsyncResult
from kombu.utils.json import dumps, loads

from penstock.config.endpoints.registry import Registry
from penstock.config.errors import EndpointNotFound, LaneParked
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.stand_in.vectors import vector
from penstock.workers.lanes.limiter import change_lane
from penstock.workers.lanes.status import LaneState, read_lane
from support.task_bench import SHORT_LEASES, Stage, TaskBench, open_bench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

DIMENSIONS = 16
_names = itertools.count()


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, SHORT_LEASES, dimensions=DIMENSIONS) as found:
        found.start_worker("-c", "50")
        yield found


class TaskClient:
    """One endpoint with a lane of its own on the stage's stand-in, and everything a test does with it."""

    def __init__(self, stage: Stage, bench: TaskBench) -> None:
        self.stage, self.bench, self.id = stage, bench, f"desk-{next(_names)}"
        self.put()

    def put(self, **settings: Any) -> None:
        limits = {"rate_limit": {"requests_per_minute": 1200}}
        self.bench.openai("text_embedding", self.id, self.stage.stand_in.url, model=self.id, **{**limits, **settings})

    def embed(self, texts: list[str], job_class: str = "bulk") -> AsyncResult:
        queue = f"penstock.{self.id}.{job_class}"
        sent: AsyncResult = self.bench.app.send_task("penstock.embed", (texts, self.id), queue=queue)
        return sent

    def done(self, results: list[AsyncResult]) -> int:
        backend = self.bench.app.backend
        return int(backend.client.exists(*(backend.get_key_for_task(result.id) for result in results)))

    def check(self, result: AsyncResult, texts: list[str]) -> None:
        answer = result.get(timeout=30)
        assert not answer.failures
        for n, text in enumerate(texts):
            assert np.array_equal(answer.vectors[n], vector(text, DIMENSIONS))

    def state(self) -> LaneState:
        settings = load_settings()
        with connect(self.stage.valkey.url) as client:
            endpoint = Registry(client, settings).get(self.id)
            return read_lane(client, settings, endpoint.quota, endpoint)

    def resume(self) -> None:
        """As ``penstock lane resume`` does."""
        settings = load_settings()
        with connect(self.stage.valkey.url) as client:
            change_lane(client, settings.key_prefix, Registry(client, settings).get(self.id).quota, "resume")

    def waiting(self) -> int:
        with self.stage.valkey.client() as client:
            return int(client.llen(f"penstock:penstock.{self.id}.bulk"))

    def stats(self) -> dict[str, Any]:
        return self.stage.stand_in.stats()

    def steady(self, seconds: float = 0.7) -> int:
        """Let some time pass; return the requests that came meanwhile."""
        before = self.stats()["requests"]
        time.sleep(seconds)
        return int(self.stats()["requests"] - before)


@pytest.fixture
def task_client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskClient]:
    stage.stand_in.configure(refuse="", api_key=[], latency_ms=0)
    with urllib.request.urlopen(f"{stage.stand_in.url}/_stand_in/reset", data=b"{}", timeout=10):
        pass
    with open_bench(stage, monkeypatch) as bench:
        yield TaskClient(stage, bench)


def penstock(*arguments: str, expect: int = 0) -> str:
    """Run a command and return what it printed."""
    argv = [sys.executable, "-m", "penstock.cli.main", *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == expect, ended.stdout + ended.stderr
    return ended.stdout


# Parked ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refuse", "why"),
    [
        ("401", "put the endpoint again with a valid key"),
        ("403", "put the endpoint again with a valid key"),
        ("404", "correct the endpoint's model, deployment or URL"),
        ("insufficient_quota", "add credit or raise the spending limit"),
    ],
)
def test_a_refusal_that_waits_for_somebody_parks_the_lane_and_burns_nothing(
    task_client: TaskClient, refuse: str, why: str
) -> None:
    task_client.stage.stand_in.configure(refuse=refuse)
    with pytest.raises(LaneParked, match=rf"{why}.*then `penstock lane resume {task_client.id}`"):
        task_client.embed(["first"], "interactive").get(timeout=20)
    state = task_client.state()
    assert state.state == "parked"
    assert why in state.why
    assert task_client.stats()["requests"] == 1
    waiting = [task_client.embed([f"bulk {n}"]) for n in range(5)]
    for n in range(3):
        with pytest.raises(LaneParked):  # told at once, nothing is asked
            task_client.embed([f"told {n}"], "interactive").get(timeout=20)
    assert task_client.steady() == 0
    assert (task_client.stats()["requests"], task_client.waiting()) == (1, 5)

    task_client.resume()  # too early: one probe, and parked again
    wait_until(lambda: task_client.state().state == "parked" and task_client.stats()["requests"] == 2, "one probe")
    assert task_client.steady() == 0

    task_client.stage.stand_in.configure(refuse="")
    task_client.resume()
    for n, result in enumerate(waiting):
        task_client.check(result, [f"bulk {n}"])
    assert task_client.state().state == "open"
    assert task_client.stats()["billed_again"] == 0


def test_no_credit_in_mid_run_costs_at_most_three_more_requests_and_loses_nothing(task_client: TaskClient) -> None:
    task_client.stage.stand_in.configure(latency_ms=50)
    results = [task_client.embed([f"text {n}"]) for n in range(80)]
    wait_until(lambda: task_client.done(results) >= 20, "a run well under way", 30)
    task_client.stage.stand_in.configure(refuse="insufficient_quota")
    wait_until(lambda: task_client.state().state == "parked", "the lane is parked")
    assert task_client.steady() == 0
    stats = task_client.stats()
    assert stats["statuses"]["429"] <= 1 + 3
    assert task_client.done(results) == stats["served"] < 80
    assert "insufficient_quota (HTTP 429)" in task_client.state().why
    task_client.stage.stand_in.configure(refuse="")
    task_client.resume()
    for n, result in enumerate(results):
        task_client.check(result, [f"text {n}"])
    stats = task_client.stats()
    assert (stats["distinct_texts"], stats["billed_again"]) == (80, 0)


def test_what_a_call_had_paid_for_when_the_lane_was_parked_is_not_paid_again(task_client: TaskClient) -> None:
    task_client.put(max_inputs_per_request=1, rate_limit={"requests_per_minute": 600})
    texts = [f"text {n}" for n in range(30)]
    result = task_client.embed(texts)
    wait_until(lambda: task_client.stats()["served"] >= 5, "a part of the call")
    task_client.stage.stand_in.configure(refuse="insufficient_quota")
    wait_until(lambda: task_client.state().state == "parked", "the lane is parked")
    task_client.stage.stand_in.configure(refuse="")
    task_client.resume()
    task_client.check(result, texts)
    stats = task_client.stats()
    assert (stats["distinct_texts"], stats["billed_again"]) == (30, 0)
    answer = result.get(timeout=1)
    assert answer.effort.possibly_billed_twice == 0
    assert answer.usage.requests == 30


def test_a_changed_endpoint_unparks_its_lane_by_itself(task_client: TaskClient) -> None:
    task_client.stage.stand_in.configure(api_key=["the-right-key"])
    results = [task_client.embed([f"text {n}"]) for n in range(10)]
    wait_until(lambda: task_client.state().state == "parked", "the lane is parked by its wrong key", 20)
    assert task_client.steady() == 0
    assert task_client.stats()["served"] == 0
    task_client.put(api_key="another-wrong-key")
    wait_until(lambda: len(task_client.stats()["api_keys"]) == 2, "a probe with the new key", 20)
    wait_until(lambda: task_client.state().state == "parked", "the lane is parked again", 20)
    assert task_client.steady() == 0
    task_client.put(api_key="the-right-key")
    for n, result in enumerate(results):
        task_client.check(result, [f"text {n}"])
    stats = task_client.stats()
    assert stats["statuses"]["401"] <= 6
    assert (stats["distinct_texts"], stats["billed_again"]) == (10, 0)


# Paused, changed, deleted ------------------------------------------------------------------------------------------


def test_a_paused_lane_holds_everything_in_the_broker_until_it_is_resumed(task_client: TaskClient) -> None:
    assert "paused: invoice in dispute" in penstock("lane", "pause", task_client.id, "--why", "invoice in dispute")
    bulk = [task_client.embed([f"bulk {n}"]) for n in range(10)]
    interactive = task_client.embed(["interactive"], "interactive")
    assert task_client.steady() == 0
    assert task_client.waiting() == 10
    (row,) = [row for row in json.loads(penstock("lanes", "--json"))["lanes"] if row["inference_id"] == task_client.id]
    assert (row["state"], row["why"]) == ("paused", "invoice in dispute")
    assert row["waiting"] == {"interactive": 1, "bulk": 10}
    assert row["in_flight"] == {"interactive": 0, "bulk": 0}
    penstock("lane", "resume", task_client.id)
    task_client.check(interactive, ["interactive"])
    for n, result in enumerate(bulk):
        task_client.check(result, [f"bulk {n}"])
    assert task_client.stats()["billed_again"] == 0


def test_requests_in_flight_are_finished_when_a_lane_is_paused(task_client: TaskClient) -> None:
    task_client.stage.stand_in.configure(latency_ms=1500)
    results = [task_client.embed([f"text {n}"]) for n in range(3)]
    wait_until(lambda: task_client.stats()["in_flight"] >= 1, "a request in flight")
    penstock("lane", "pause", task_client.id)
    flying = task_client.stats()["requests"]
    wait_until(lambda: task_client.done(results) >= flying, "those in flight are done", 10)
    task_client.stage.stand_in.configure(latency_ms=0)
    task_client.resume()
    for n, result in enumerate(results):
        task_client.check(result, [f"text {n}"])
    assert task_client.stats()["billed_again"] == 0


def test_calls_to_an_endpoint_that_is_deleted_meanwhile_are_told_so(task_client: TaskClient) -> None:
    penstock("lane", "pause", task_client.id)
    result = task_client.embed(["too late"], "interactive")
    penstock("endpoint", "delete", task_client.id)
    with pytest.raises(EndpointNotFound):
        result.get(timeout=20)


# Delivered twice ---------------------------------------------------------------------------------------------------


def test_a_finished_task_that_is_delivered_again_is_not_run_again(task_client: TaskClient) -> None:
    penstock("lane", "pause", task_client.id)
    result = task_client.embed(["once"])
    with task_client.stage.valkey.client() as client:
        key = f"penstock:penstock.{task_client.id}.bulk"
        wait_until(lambda: client.llen(key) == 1, "the message waits")
        message = loads(client.lindex(key, 0).decode())
        penstock("lane", "resume", task_client.id)
        task_client.check(result, ["once"])
        message["properties"]["delivery_tag"] = "as-restored"
        message["properties"]["delivery_info"]["redelivered"] = message["headers"]["redelivered"] = True
        client.rpush(key, dumps(message))
        taken = ("penstock:unacked_index", "as-restored")
        wait_until(lambda: client.llen(key) == 0 and client.zscore(*taken) is None, "it is taken and acknowledged")
    assert task_client.stats()["requests"] == 1
    task_client.check(result, ["once"])


def test_remote_control_works_beside_the_feeder(task_client: TaskClient) -> None:
    name = task_client.stage.workers[0].name
    only = {"destination": [name], "timeout": 10, "limit": 1}
    assert task_client.bench.app.control.broadcast("ping", reply=True, **only) == [{name: {"ok": "pong"}}]
    inspect = task_client.bench.app.control.inspect(**only)

    def served() -> set[str]:
        return {queue["name"] for queue in inspect.active_queues()[name]}

    lane = {f"penstock.{task_client.id}.bulk", f"penstock.{task_client.id}.interactive", "penstock"}
    wait_until(lambda: lane <= served(), "it serves the new lane")
    assert inspect.stats()[name]["pool"]["max-concurrency"] == 50
