"""Our app on pytest-celery's setup: broker, back end and workers are its nodes, the app is the setup's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from celery import chain, chord, group
from celery.canvas import Signature
from pytest_celery import CeleryTestSetup

from penstock.config.names import CHUNK_QUEUE, CHUNK_TASK, EMBED_TASK, queue_name
from penstock.stand_in.vectors import vector
from penstock.workers.results.mapping import result_from
from penstock.workers.results.types import EmbedResult
from support.stand_in import StandIn
from support.task_bench import SHORT_LEASES, TaskBench
from support.waiting import wait_until

DIMENSIONS = 8
TEXT = "A penstock is the gated pipe that feeds a turbine. " * 3


@pytest.fixture
def endpoint(celery_setup: CeleryTestSetup, stand_in: Callable[..., StandIn]) -> StandIn:
    """The endpoint ``docs``, on the stand-in that is returned."""
    server = stand_in(dimensions=DIMENSIONS)
    bench = TaskBench(celery_setup.broker.config()["host_url"], celery_setup.app)
    chunking = {"strategy": "word", "max_chunk_size": 10, "overlap": 1}
    bench.openai("text_embedding", "docs", server.url, chunking_settings=chunking)
    return server


def embed(setup: CeleryTestSetup, *args: object) -> Signature:
    return setup.app.signature(EMBED_TASK, (*args, "docs"), queue=queue_name("docs"))


def check(result: object, texts: list[str]) -> None:
    assert isinstance(result, EmbedResult)
    assert not result.failures
    assert len(result.vectors) == len(texts)
    for found, text in zip(result.vectors, texts, strict=True):
        assert np.array_equal(found, vector(text, DIMENSIONS))


@pytest.mark.workers(2, "-c", "4", **SHORT_LEASES)
def test_its_nodes_are_ready_and_answer(celery_setup: CeleryTestSetup) -> None:
    assert len(celery_setup) == 4
    assert celery_setup.ready(control=True, docker=True)
    names = {node.hostname() for node in celery_setup.worker_cluster}
    assert set(celery_setup.app.control.inspect(timeout=10, limit=2).ping()) == names
    celery_setup.worker.assert_log_exists(" ready.")


@pytest.mark.workers(2, "-c", "4", **SHORT_LEASES)
def test_canvas_is_celerys(celery_setup: CeleryTestSetup, endpoint: StandIn) -> None:
    app = celery_setup.app
    chunk = app.signature(CHUNK_TASK, (TEXT, "docs"), queue=CHUNK_QUEUE)
    chunks = chunk.delay().get(timeout=30)
    assert len(chunks) > 1
    check(chain(chunk, embed(celery_setup))().get(timeout=30), [each["text"] for each in chunks])
    texts = [[f"text {n}"] for n in range(6)]
    both = group(embed(celery_setup, each) for each in texts)().get(timeout=30)
    for result, each in zip(both, texts, strict=True):
        check(result, each)
    body = app.signature("celery.accumulate", queue="penstock")
    (gathered,) = chord([embed(celery_setup, each) for each in texts], app=app)(body).get(timeout=30)
    for result, each in zip(gathered, texts, strict=True):
        check(result_from(result), each)


@pytest.mark.workers(2, "-c", "4", **SHORT_LEASES)
def test_a_chain_goes_on_when_a_worker_is_killed_in_the_midst_of_it(
    celery_setup: CeleryTestSetup, endpoint: StandIn
) -> None:
    endpoint.configure(latency_ms=3000)
    chunk = celery_setup.app.signature(CHUNK_TASK, (TEXT, "docs"), queue=CHUNK_QUEUE)
    result = chain(chunk, embed(celery_setup))()
    wait_until(lambda: endpoint.stats()["in_flight"] == 1, "it is being embedded", 30)
    ours = [node for node in celery_setup.worker_cluster if "penstock.embed" in node.logs().split(" ready.")[1]]
    assert len(ours) == 1
    ours[0].kill()
    assert ours[0].wait() != 0
    check(result.get(timeout=60), [each["text"] for each in result.parent.get(timeout=10)])
    assert result.get().effort.possibly_billed_twice > 0
