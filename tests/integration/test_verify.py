"""One tiny live call, against a stand-in of each service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.errors import InferenceFailed
from penstock.config.settings import Settings
from penstock.tasks.request.verify import verify


def found(folder: Path, task_type: str, service: str, **settings: Any) -> dict[str, Any]:
    of_home = Settings(home=folder)
    body = {"service": service, "service_settings": settings}
    return verify(validate_endpoint(task_type, "tried", body, of_home))


def azure(url: str) -> dict[str, Any]:
    return {"url": url, "deployment_id": "d", "api_version": "2024-10-21", "api_key": "k"}


def ai_studio(url: str) -> dict[str, Any]:
    return {"target": url, "endpoint_type": "token", "provider": "cohere", "api_key": "k"}


def bedrock(url: str) -> dict[str, Any]:
    keys = {"access_key": "AKIDEXAMPLE", "secret_key": "secret"}
    model = "amazon.titan-embed-text-v2:0"
    return {"url": url, "region": "eu-central-1", "provider": "amazontitan", "model": model, **keys}


def test_embeddings_of_every_service_tell_their_length(stand_in: Any, folder: Path) -> None:
    url = stand_in(dimensions=64).url
    for service, settings in {
        "openai": {"url": url, "model_id": "m", "api_key": "k"},
        "azureopenai": azure(url),
        "azureaistudio": ai_studio(url),
        "cohere": {"url": url, "model_id": "m", "api_key": "k"},
        "amazonbedrock": bedrock(url),
    }.items():
        answer = found(folder, "text_embedding", service, **settings)
        assert answer["checked"] is True
        assert answer["dimensions"] > 0, service
        assert 0 < answer["latency_ms"] < 30_000


def test_what_is_deployed_is_told_where_the_service_says_it(stand_in: Any, folder: Path) -> None:
    answer = found(folder, "text_embedding", "azureaistudio", **ai_studio(stand_in(dimensions=8).url))
    assert "model_name" in answer["info"]


def test_an_embedded_image_is_one_pixel(stand_in: Any, folder: Path) -> None:
    answer = found(folder, "image_embedding", "azureaistudio", **ai_studio(stand_in(dimensions=8).url))
    assert answer["dimensions"] == 8


def test_completions_cost_one_request(stand_in: Any, folder: Path) -> None:
    server = stand_in()
    for task_type in ("completion", "chat_completion"):
        answer = found(folder, task_type, "openai", url=server.url, model_id="m", api_key="k")
        assert answer["checked"] is True
        assert answer["model"] == "m"


def test_the_limits_of_the_headers_are_told(stand_in: Any, folder: Path) -> None:
    server = stand_in(rpm=600, headers="openai")
    answer = found(folder, "text_embedding", "openai", url=server.url, model_id="m", api_key="k")
    assert answer["limits"]["limit_requests"] == 600


@pytest.mark.parametrize(
    ("options", "status", "remedy"),
    [
        ({"api_key": ["other"]}, 401, "check the key and what it may use"),
        ({"models": ["other"]}, 404, "check the model or deployment"),
        ({"fault": {"500": 1.0}}, 500, "try again, or see to the server"),
        ({"fault": {"html-200": 1.0}}, None, "speaks another wire format"),
    ],
)
def test_a_refusal_says_what_to_do(
    stand_in: Any, folder: Path, options: dict[str, Any], status: int | None, remedy: str
) -> None:
    url = stand_in(**options).url
    with pytest.raises(InferenceFailed, match=r"the test call of endpoint \[tried\] failed") as caught:
        found(folder, "text_embedding", "openai", url=url, model_id="m", api_key="sk-hush0123456789")
    assert remedy in str(caught.value)
    assert "hush" not in str(caught.value)
    if status:
        assert caught.value.status == status


class _Reasoning(BaseHTTPRequestHandler):
    """A model that takes ``max_completion_tokens`` only, as OpenAI's reasoning models do."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
            self._answer(400, {"error": {"message": message, "code": "unsupported_parameter"}})
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "."}, "finish_reason": "length"}
            self._answer(200, {"model": "thinker", "choices": [choice]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        """Say nothing."""


@pytest.fixture
def reasoning() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Reasoning) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_models_that_refuse_the_old_name_of_the_limit_are_asked_by_the_new(reasoning: str, folder: Path) -> None:
    answer = found(folder, "chat_completion", "openai", url=reasoning, model_id="m", api_key="k")
    assert answer["model"] == "thinker"
