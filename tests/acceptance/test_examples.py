"""The examples run as their docstrings say."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.stand_in.vectors import vectors
from support.processes import Child
from support.stand_in import StandIn
from support.waiting import wait_until
from support.worker import Worker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def put(task_type: str, inference_id: str, body: dict[str, Any]) -> None:
    """Put an endpoint as a user does."""
    argv = ["endpoint", "put", task_type, inference_id, "--file", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", *argv],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def endpoint(broker_url: str, home: Path, stand_in: Callable[..., StandIn]) -> str:
    """An endpoint ``docs-embeddings`` at a stand-in."""
    settings = {"api_key": "any", "model_id": "m", "url": f"{stand_in(rpm=6000).url}/v1/embeddings"}
    chunking = {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0}
    body = {"service": "openai", "service_settings": settings, "chunking_settings": chunking}
    put("text_embedding", "docs-embeddings", body)
    return "docs-embeddings"


@pytest.fixture
def web_app(endpoint: str, worker: Callable[..., list[Worker]], folder: Path) -> Iterator[str]:
    """URL of the running web application, with a worker behind it."""
    worker()
    app = Child([sys.executable, str(EXAMPLES / "web_app.py")], folder / "web.log", {"PORT": "0"}, cwd=folder)
    app.wait_for("http://")
    yield app.log.split()[0]
    app.kill_all()


def ask(url: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


def test_a_web_application_enqueues_and_fetches_vectors(web_app: str) -> None:
    texts = ["a gated pipe", "", "a turbine"]
    status, answer = ask(f"{web_app}/embeddings", {"texts": texts})
    assert status == 202

    def done() -> dict[str, Any] | None:
        status, body = ask(f"{web_app}/embeddings/{answer['id']}")
        assert status == 200, body
        return body if body["state"] == "SUCCESS" else None

    body = wait_until(done, "the vectors", 30)
    assert body is not None
    assert [each["code"] for each in body["failures"]] == ["empty_text"]
    first, missing, last = body["vectors"]
    assert missing is None
    np.testing.assert_array_equal(np.array([first, last], np.float32), vectors(["a gated pipe", "a turbine"]))


def test_the_web_application_refuses_what_is_no_list_of_texts(web_app: str) -> None:
    assert ask(f"{web_app}/embeddings", {"text": "one"})[0] == 400
    assert ask(f"{web_app}/nowhere")[0] == 404


def test_a_chord_of_chains_cuts_embeds_and_indexes_documents(
    endpoint: str, worker: Callable[..., list[Worker]], folder: Path
) -> None:
    worker(app="canvas", PYTHONPATH=str(EXAMPLES))
    texts = {"a.txt": "The pipe is gated. The turbine turns. " * 20, "b.txt": "One sentence."}
    for name, text in texts.items():
        (folder / name).write_text(text)
    argv = [sys.executable, str(EXAMPLES / "canvas.py"), *texts]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "index.npz") as index:
        assert index["vectors"].shape == (len(index["documents"]), 256)
        assert set(index["documents"]) == set(texts)
        assert len(index["documents"]) > 5
        np.testing.assert_array_equal(index["vectors"][-1], vectors(["One sentence."])[0])


def test_an_answer_is_printed_as_it_comes(
    broker_url: str,
    home: Path,
    stand_in: Callable[..., StandIn],
    worker: Callable[..., list[Worker]],
    folder: Path,
) -> None:
    url = f"{stand_in(token_delay_ms=20).url}/v1/chat/completions"
    settings = {"api_key": "any", "model_id": "m", "url": url}
    put("chat_completion", "chat", {"service": "openai", "service_settings": settings})
    worker()
    argv = [sys.executable, str(EXAMPLES / "chat.py"), "What is a penstock?"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10
    assert done.stderr.strip().startswith("[stop, ")
