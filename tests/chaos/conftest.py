"""A bench for chaos: one stand-in, endpoints on it, real workers with short leases, and what came of it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from penstock.stand_in.vectors import vector
from penstock.workers.results.types import EmbedResult
from support.app import publish, put_endpoint
from support.stand_in import StandIn
from support.task_bench import TaskBench
from support.waiting import wait_until

DIMENSIONS = 8
#: Leases short enough for a test, long enough for a busy machine.
SHORT_LEASES = {"PENSTOCK_VISIBILITY_TIMEOUT_S": "3", "PENSTOCK_HEARTBEAT_S": "0.5"}


class Bench(TaskBench):
    """Puts endpoints, publishes calls, collects results; ``texts`` maps a task's id to what it was to embed."""

    def __init__(self, broker_url: str, app: Any = None) -> None:
        super().__init__(broker_url, app)
        self.texts: dict[str, list[str]] = {}

    def put_docs(self, inference_id: str, server: StandIn, *, model: str = "m", **service_settings: Any) -> None:
        """Put an endpoint on a stand-in; each model has a quota of its own."""
        settings = {"model_id": model, "url": f"{server.url}/v1", **service_settings}
        put_endpoint(self.broker_url, "text_embedding", inference_id, "openai", settings)

    def publish(self, inference_id: str, calls: Sequence[list[str]], job_class: str = "bulk") -> list[str]:
        """Publish one ``embed`` call for each list of texts. Returns the tasks' ids."""
        ids = publish(self.app, inference_id, calls, job_class)
        self.texts.update(zip(ids, calls, strict=True))
        return ids

    def done(self, ids: Sequence[str]) -> int:
        """How many of the tasks have a result."""
        client = self.app.backend.client
        keys = [self.app.backend.get_key_for_task(each) for each in ids]
        return int(client.exists(*keys)) if keys else 0

    def collect(self, ids: Sequence[str], timeout: float = 60.0) -> list[EmbedResult]:
        """Wait for all results and check that each text has its own vector."""
        wait_until(lambda: self.done(ids) == len(ids), f"{len(ids)} results", timeout, every=0.1)
        metas = [self.app.backend.get_task_meta(each) for each in ids]
        assert {meta["status"] for meta in metas} == {"SUCCESS"}, metas
        results = [meta["result"] for meta in metas]
        for each, result in zip(ids, results, strict=True):
            texts = self.texts[each]
            failed = {failure.index for failure in result.failures}
            for n, text in enumerate(texts):
                if n not in failed:
                    assert np.array_equal(result.vectors[n], vector(text, DIMENSIONS)), f"a wrong vector for {text!r}"
        return results


@pytest.fixture
def bench(home: Any, broker_url: str) -> Iterator[Bench]:
    """A bench on the session's broker."""
    yield from make_bench(broker_url)


def make_bench(broker_url: str) -> Iterator[Bench]:
    made = Bench(broker_url)
    yield made
    made.close()


def calls(count: int, texts_each: int = 1, name: str = "text") -> list[list[str]]:
    """Return calls with texts that are all different."""
    return [[f"{name} {n}-{m}" for m in range(texts_each)] for n in range(count)]
