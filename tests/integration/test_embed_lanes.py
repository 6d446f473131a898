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


class Desk:
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
def desk(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    stage.stand_in.configure(refuse="", api_key=[], latency_ms=0)
    with urllib.request.urlopen(f"{stage.stand_in.url}/_stand_in/reset", data=b"{}", timeout=10):
        pass
    with open_bench(stage, monkeypatch) as bench:
        yield Desk(stage, bench)


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
def test_a_refusal_that_waits_for_somebody_parks_the_lane_and_burns_nothing(desk: Desk, refuse: str, why: str) -> None:
    desk.stage.stand_in.configure(refuse=refuse)
    with pytest.raises(LaneParked, match=rf"{why}.*then `penstock lane resume {desk.id}`"):
        desk.embed(["first"], "interactive").get(timeout=20)
    state = desk.state()
    assert state.state == "parked"
    assert why in state.why
    assert desk.stats()["requests"] == 1
    waiting = [desk.embed([f"bulk {n}"]) for n in range(5)]
    for n in range(3):
        with pytest.raises(LaneParked):  # told at once, nothing is asked
            desk.embed([f"told {n}"], "interactive").get(timeout=20)
    assert desk.steady() == 0
    assert (desk.stats()["requests"], desk.waiting()) == (1, 5)

    desk.resume()  # too early: one probe, and parked again
    wait_until(lambda: desk.state().state == "parked" and desk.stats()["requests"] == 2, "one probe")
    assert desk.steady() == 0

    desk.stage.stand_in.configure(refuse="")
    desk.resume()
    for n, result in enumerate(waiting):
        desk.check(result, [f"bulk {n}"])
    assert desk.state().state == "open"
    assert desk.stats()["billed_again"] == 0


def test_no_credit_in_mid_run_costs_at_most_three_more_requests_and_loses_nothing(desk: Desk) -> None:
    desk.stage.stand_in.configure(latency_ms=50)
    results = [desk.embed([f"text {n}"]) for n in range(80)]
    wait_until(lambda: desk.done(results) >= 20, "a run well under way", 30)
    desk.stage.stand_in.configure(refuse="insufficient_quota")
    wait_until(lambda: desk.state().state == "parked", "the lane is parked")
    assert desk.steady() == 0
    stats = desk.stats()
    assert stats["statuses"]["429"] <= 1 + 3
    assert desk.done(results) == stats["served"] < 80
    assert "insufficient_quota (HTTP 429)" in desk.state().why
    desk.stage.stand_in.configure(refuse="")
    desk.resume()
    for n, result in enumerate(results):
        desk.check(result, [f"text {n}"])
    stats = desk.stats()
    assert (stats["distinct_texts"], stats["billed_again"]) == (80, 0)


def test_what_a_call_had_paid_for_when_the_lane_was_parked_is_not_paid_again(desk: Desk) -> None:
    desk.put(max_inputs_per_request=1, rate_limit={"requests_per_minute": 600})
    texts = [f"text {n}" for n in range(30)]
    result = desk.embed(texts)
    wait_until(lambda: desk.stats()["served"] >= 5, "a part of the call")
    desk.stage.stand_in.configure(refuse="insufficient_quota")
    wait_until(lambda: desk.state().state == "parked", "the lane is parked")
    desk.stage.stand_in.configure(refuse="")
    desk.resume()
    desk.check(result, texts)
    stats = desk.stats()
    assert (stats["distinct_texts"], stats["billed_again"]) == (30, 0)
    answer = result.get(timeout=1)
    assert answer.effort.possibly_billed_twice == 0
    assert answer.usage.requests == 30


def test_a_changed_endpoint_unparks_its_lane_by_itself(desk: Desk) -> None:
    desk.stage.stand_in.configure(api_key=["the-right-key"])
    results = [desk.embed([f"text {n}"]) for n in range(10)]
    wait_until(lambda: desk.state().state == "parked", "the lane is parked by its wrong key", 20)
    assert desk.steady() == 0
    assert desk.stats()["served"] == 0
    desk.put(api_key="another-wrong-key")
    wait_until(lambda: len(desk.stats()["api_keys"]) == 2, "a probe with the new key", 20)
    wait_until(lambda: desk.state().state == "parked", "the lane is parked again", 20)
    assert desk.steady() == 0
    desk.put(api_key="the-right-key")
    for n, result in enumerate(results):
        desk.check(result, [f"text {n}"])
    stats = desk.stats()
    assert stats["statuses"]["401"] <= 6
    assert (stats["distinct_texts"], stats["billed_again"]) == (10, 0)


# Paused, changed, deleted ------------------------------------------------------------------------------------------


def test_a_paused_lane_holds_everything_in_the_broker_until_it_is_resumed(desk: Desk) -> None:
    assert "paused: invoice in dispute" in penstock("lane", "pause", desk.id, "--why", "invoice in dispute")
    bulk = [desk.embed([f"bulk {n}"]) for n in range(10)]
    interactive = desk.embed(["interactive"], "interactive")
    assert desk.steady() == 0
    assert desk.waiting() == 10
    (row,) = [row for row in json.loads(penstock("lanes", "--json"))["lanes"] if row["inference_id"] == desk.id]
    assert (row["state"], row["why"]) == ("paused", "invoice in dispute")
    assert row["waiting"] == {"interactive": 1, "bulk": 10}
    assert row["in_flight"] == {"interactive": 0, "bulk": 0}
    penstock("lane", "resume", desk.id)
    desk.check(interactive, ["interactive"])
    for n, result in enumerate(bulk):
        desk.check(result, [f"bulk {n}"])
    assert desk.stats()["billed_again"] == 0


def test_requests_in_flight_are_finished_when_a_lane_is_paused(desk: Desk) -> None:
    desk.stage.stand_in.configure(latency_ms=1500)
    results = [desk.embed([f"text {n}"]) for n in range(3)]
    wait_until(lambda: desk.stats()["in_flight"] >= 1, "a request in flight")
    penstock("lane", "pause", desk.id)
    flying = desk.stats()["requests"]
    wait_until(lambda: desk.done(results) >= flying, "those in flight are done", 10)
    desk.stage.stand_in.configure(latency_ms=0)
    desk.resume()
    for n, result in enumerate(results):
        desk.check(result, [f"text {n}"])
    assert desk.stats()["billed_again"] == 0


def test_calls_to_an_endpoint_that_is_deleted_meanwhile_are_told_so(desk: Desk) -> None:
    penstock("lane", "pause", desk.id)
    result = desk.embed(["too late"], "interactive")
    penstock("endpoint", "delete", desk.id)
    with pytest.raises(EndpointNotFound):
        result.get(timeout=20)


# Delivered twice ---------------------------------------------------------------------------------------------------


def test_a_finished_task_that_is_delivered_again_is_not_run_again(desk: Desk) -> None:
    penstock("lane", "pause", desk.id)
    result = desk.embed(["once"])
    with desk.stage.valkey.client() as client:
        key = f"penstock:penstock.{desk.id}.bulk"
        wait_until(lambda: client.llen(key) == 1, "the message waits")
        message = loads(client.lindex(key, 0).decode())
        penstock("lane", "resume", desk.id)
        desk.check(result, ["once"])
        message["properties"]["delivery_tag"] = "as-restored"
        message["properties"]["delivery_info"]["redelivered"] = message["headers"]["redelivered"] = True
        client.rpush(key, dumps(message))
        taken = ("penstock:unacked_index", "as-restored")
        wait_until(lambda: client.llen(key) == 0 and client.zscore(*taken) is None, "it is taken and acknowledged")
    assert desk.stats()["requests"] == 1
    desk.check(result, ["once"])


def test_remote_control_works_over_our_transport(desk: Desk) -> None:
    name = desk.stage.workers[0].name
    only = {"destination": [name], "timeout": 10, "limit": 1}
    assert desk.bench.app.control.broadcast("ping", reply=True, **only) == [{name: {"ok": "pong"}}]
    inspect = desk.bench.app.control.inspect(**only)

    def served() -> set[str]:
        return {queue["name"] for queue in inspect.active_queues()[name]}

    lane = {f"penstock.{desk.id}.bulk", f"penstock.{desk.id}.interactive", "penstock"}
    wait_until(lambda: lane <= served(), "it serves the new lane")
    assert inspect.stats()[name]["pool"]["max-concurrency"] == 50
