"""The ``chunk`` task: called here, run by a worker, and chained with ``embed``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.stand_in.vectors import vectors
from penstock.tasks.chunking import sentence_chunks
from support.stand_in import StandIn
from support.worker import Worker

TEXT = "A sentence of six plain words. " * 8 + "שלום 😀 \U0001d4b3. " + "Confidential ends it."
DIMENSIONS = 32

CALL = """
import json, sys
from celery import chain
from penstock.config.errors import PenstockError
from penstock.tasks import chunk, embed
text, how = json.loads(sys.argv[1]), sys.argv[2]
try:
    if how == "here":
        found = chunk(text, sys.argv[3])
    elif how == "worker":
        found = chunk.delay(text, endpoint_id=sys.argv[3]).get(timeout=40)
    else:
        found = chain(chunk.s(text, sys.argv[3]), embed.s(sys.argv[3])).delay().get(timeout=40).vectors.tolist()
    print(json.dumps({"found": found}))
except PenstockError as exc:
    print(json.dumps({"error": type(exc).__name__, "message": str(exc)}))
"""


@pytest.fixture
def endpoint(broker_url: str, home: Path, stand_in: Callable[..., StandIn]) -> str:
    """An endpoint with small chunks at a stand-in, and a completion endpoint ``chat``."""
    url = stand_in(rpm=6000, dimensions=DIMENSIONS).url
    chunking = {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 1}
    settings = load_settings()
    with connect(broker_url) as client:
        registry = Registry(client, settings)
        service = {"api_key": "any", "model_id": "m"}
        body: dict[str, Any] = {"service": "openai", "service_settings": {**service, "url": f"{url}/v1/embeddings"}}
        registry.put("text_embedding", "docs", {**body, "chunking_settings": chunking})
        body["service_settings"]["url"] = f"{url}/v1/chat/completions"
        registry.put("completion", "chat", body)
    return "docs"


def call(text: Any, how: str, endpoint_id: str = "docs") -> Any:
    """Call the task from another process, as a web application does."""
    done = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps(text), how, endpoint_id], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EXPECTED = [{"start": start, "end": end, "text": TEXT[start:end]} for start, end in sentence_chunks(TEXT, 20, 1)]


def test_a_call_splits_the_text_in_the_callers_process(endpoint: str) -> None:
    assert len(EXPECTED) > 2
    assert call(TEXT, "here") == {"found": EXPECTED}
    assert call("", "here") == {"found": [{"start": 0, "end": 0, "text": ""}]}


def test_a_worker_splits_it_and_what_it_logs_shows_no_text(endpoint: str, worker: Callable[..., list[Worker]]) -> None:
    [running] = worker(args=("-P", "prefork", "-c", "1", "-Q", "penstock.chunk"))
    assert call(TEXT, "worker") == {"found": EXPECTED}
    running.wait_for("succeeded in")
    assert "sentence" not in running.log
    assert "Confidential" not in running.log


def test_chunks_go_on_to_be_embedded(endpoint: str, worker: Callable[..., list[Worker]]) -> None:
    worker()
    found = call(TEXT, "chain")["found"]
    assert found == vectors([each["text"] for each in EXPECTED], DIMENSIONS).tolist()


@pytest.mark.parametrize(
    ("text", "endpoint_id", "error", "message"),
    [
        ("a", "dosc", "EndpointNotFound", "did you mean docs?"),
        ("a", "chat", "WrongTaskType", "[chat] is a completion endpoint"),
        (["a"], "docs", "InputInvalid", "[text] must be a string, not list"),
        (None, "docs", "InputInvalid", "[text] must be a string, not NoneType"),
    ],
)
def test_what_cannot_be_chunked_has_a_typed_error(
    endpoint: str, text: Any, endpoint_id: str, error: str, message: str
) -> None:
    found = call(text, "here", endpoint_id)
    assert found["error"] == error
    assert message in found["message"]
