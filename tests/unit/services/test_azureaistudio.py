"""Azure AI Model Inference: addresses, both key headers, typed vectors, image embeddings, info, flat errors."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from penstock.config.endpoints.services import TaskType
from penstock.tasks.services.base import CompleteCall, EmbedCall, Refused
from penstock.workers.lanes.outcome import OutcomeKind
from support.wire import answer, body_of, check_schema, endpoint, service

AZURE = service("azureaistudio")
TARGET = "https://res.services.ai.azure.com/models"
VERSION = "?api-version=2024-05-01-preview"
SETTINGS = {"target": TARGET, "endpoint_type": "token", "provider": "cohere"}


def target(task_type: str = "text_embedding", **settings: Any) -> Any:
    return endpoint("azureaistudio", task_type, SETTINGS | settings)


@pytest.mark.parametrize(
    ("settings", "sent_to"),
    [
        ({}, f"{TARGET}/embeddings{VERSION}"),
        ({"target": TARGET + "/"}, f"{TARGET}/embeddings{VERSION}"),
        ({"api_version": "2025-04-01"}, f"{TARGET}/embeddings?api-version=2025-04-01"),
        ({"target": f"{TARGET}?api-version=x"}, f"{TARGET}/embeddings?api-version=x"),
        ({"target": f"{TARGET}/embeddings"}, f"{TARGET}/embeddings{VERSION}"),
        ({"target": "https://c.eastus.models.ai.azure.com"}, f"https://c.eastus.models.ai.azure.com/embeddings{VERSION}"),
        ({"target": "https://c.inference.ai.azure.com/v1"}, "https://c.inference.ai.azure.com/v1/embeddings"),
        ({"target": "https://c/v1/embeddings"}, "https://c/v1/embeddings"),
        ({"target": "https://c.inference.ml.azure.com/score", "endpoint_type": "realtime"},
         f"https://c.inference.ml.azure.com/score{VERSION}"),
        ({"provider": "openai", "target": "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=v"},
         "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=v"),
    ],
)  # fmt: skip
def test_a_target_is_a_base_or_the_whole_address(settings: dict[str, str], sent_to: str) -> None:
    assert AZURE.embed_request(target(**settings), EmbedCall(["a"])).url == sent_to


def test_the_key_is_in_both_headers_and_for_azure_openai_in_its_own() -> None:
    headers = AZURE.embed_request(target(), EmbedCall(["a"])).headers
    assert (headers["api-key"], headers["Authorization"]) == ("key-0123456789abcdef", "Bearer key-0123456789abcdef")
    headers = AZURE.embed_request(target(provider="openai"), EmbedCall(["a"])).headers
    assert headers["api-key"] == "key-0123456789abcdef"
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("given", "sent"), [("search", "query"), ("ingest", "document"), ("classification", "text"), (None, None)]
)
def test_elasticsearch_s_input_types_become_the_service_s(given: str | None, sent: str | None) -> None:
    request = AZURE.embed_request(target(dimensions=8, model="embed"), EmbedCall(["a"], given))
    expected = {"input": ["a"], "model": "embed", "dimensions": 8} | ({"input_type": sent} if sent else {})
    assert body_of(request) == expected
    check_schema("azureaistudio.embeddings.request", body_of(request))


@pytest.mark.parametrize("key", ["extra_parameters", "extra-parameters"])
def test_extra_parameters_is_a_header(key: str) -> None:
    settings = {key: "pass-through"}
    request = AZURE.embed_request(target(), EmbedCall(["a"], task_settings=settings))
    assert request.headers["extra-parameters"] == "pass-through"
    assert body_of(request) == {"input": ["a"]}
    request = AZURE.complete_request(target("chat_completion"), CompleteCall("a", task_settings=settings))
    assert request.headers["extra-parameters"] == "pass-through"
    assert key not in body_of(request)
    assert "extra-parameters" not in AZURE.embed_request(target(), EmbedCall(["a"])).headers


@pytest.mark.parametrize(
    ("encoding", "row", "dtype"),
    [
        ("float", [0.5, 1.5], np.float32),
        ("base64", base64.b64encode(np.array([0.5, 1.5], "<f4").tobytes()).decode(), np.float32),
        ("int8", [-128, 127], np.int8),
        ("uint8", [0, 255], np.uint8),
        ("binary", [-1, 3], np.int8),
        ("ubinary", base64.b64encode(bytes([255, 3])).decode(), np.uint8),
    ],
)
def test_every_encoding_format_gives_its_own_type_of_vector(encoding: str, row: Any, dtype: Any) -> None:
    call = EmbedCall(["a"], task_settings={"encoding_format": encoding})
    assert body_of(AZURE.embed_request(target(), call))["encoding_format"] == encoding
    body = {"id": "1", "object": "list", "model": "m", "data": [{"index": 0, "embedding": row}],
            "usage": {"prompt_tokens": 2, "total_tokens": 2}}  # fmt: skip
    found = AZURE.read_embeddings(target(), call, answer(body))
    assert found.vectors.dtype == dtype
    assert found.vectors.shape == (1, 2)
    assert found.usage.prompt_tokens == 2


def test_image_embeddings_have_their_own_route() -> None:
    inputs = [{"image": "data:image/png;base64,aGk=", "text": "a chair"}]
    request = AZURE.embed_request(target("image_embedding"), EmbedCall(inputs, "ingest"))
    assert request.url == f"{TARGET}/images/embeddings{VERSION}"
    assert body_of(request) == {"input": inputs}
    check_schema("azureaistudio.image-embeddings.request", body_of(request))


def test_a_completion_has_64_new_tokens_unless_told_otherwise_and_a_chat_as_many_as_it_likes() -> None:
    def sent(task_type: str, task_settings: Any = None, parameters: Any = None) -> dict[str, Any]:
        call = CompleteCall("a", task_settings=task_settings or {}, parameters=parameters or {})
        return body_of(AZURE.complete_request(target(task_type), call))

    assert sent("completion")["max_tokens"] == 64
    assert sent("completion", {"max_new_tokens": 9})["max_tokens"] == 9
    assert sent("completion", {"max_new_tokens": 9}, {"max_tokens": 1})["max_tokens"] == 1
    assert sent("completion", parameters={"max_new_tokens": 3})["max_tokens"] == 3
    assert "max_tokens" not in sent("completion", parameters={"max_completion_tokens": 3})
    assert "max_tokens" not in sent("chat_completion")
    assert "max_new_tokens" not in sent("completion", {"max_new_tokens": 9})
    assert sent("completion", {"temperature": 0.5, "do_sample": True})["temperature"] == 0.5


def test_info_is_asked_of_the_same_server_and_its_type_is_spelled_one_way() -> None:
    request = AZURE.info_request(target())
    assert request is not None
    assert (request.method, request.url) == ("GET", f"{TARGET}/info{VERSION}")
    whole = AZURE.info_request(target(target="https://c/embeddings"))
    assert whole is not None
    assert whole.url == f"https://c/info{VERSION}"
    for kind in ("chat-completion", "chat_completion"):
        body = {"model_name": "m", "model_type": kind, "model_provider_name": "p"}
        assert AZURE.read_info(answer(body)) == body | {"model_type": "chat_completion"}
    check_schema("azureaistudio.info", {"model_name": "m", "model_type": "image-embeddings"})
    assert AZURE.info_request(target(provider="openai")) is None
    with pytest.raises(Refused):
        AZURE.read_info(answer({"status": 404, "error": "NotFound", "message": "m"}, 404))


@pytest.mark.parametrize("key", ["input", "value"])
def test_a_422_names_the_parameter_and_its_value(key: str) -> None:
    body = {
        "status": 422,
        "code": "parameter_not_supported",
        "detail": {"loc": ["body", "response_format"], key: "json_object"},
        "message": "One of the parameters contain invalid values.",
    }
    outcome = AZURE.refusal(answer(body, 422))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REQUEST_REFUSED, "parameter_not_supported")
    assert outcome.message.endswith("(parameter response_format = json_object)")


@pytest.mark.parametrize(
    ("status", "body", "outcome_kind", "code"),
    [
        (400, {"status": 400, "code": "content_filter", "message": "The response was filtered", "param": "messages",
               "type": None}, OutcomeKind.INPUT_REFUSED, "content_filter"),
        (500, {"status": 500, "code": "content_filter", "error": "m", "param": "input"}, OutcomeKind.INPUT_REFUSED,
         "content_filter"),
        (401, {"status": 401, "error": "Unauthorized", "message": "m"}, OutcomeKind.UNAUTHORIZED, "invalid_api_key"),
        (404, {"status": 404, "error": "NotFound", "message": "m"}, OutcomeKind.NOT_FOUND, "not_found"),
        (429, {"status": 429, "error": "TooManyRequests", "message": "Retry after 2 seconds"}, OutcomeKind.RATE_LIMITED,
         "too_many_requests"),
        (404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, OutcomeKind.NOT_FOUND, "deployment_not_found"),
    ],
)  # fmt: skip
def test_flat_and_nested_errors_have_their_fates(status: int, body: Any, outcome_kind: OutcomeKind, code: str) -> None:
    outcome = AZURE.refusal(answer(body, status))
    assert (outcome.kind, outcome.code) == (outcome_kind, code)


def test_the_provider_decides_what_can_be_embedded_and_how_many_at_once() -> None:
    check = AZURE.spec.check
    assert check(TaskType.TEXT_EMBEDDING, SETTINGS, {}) == []
    assert "[provider]" in check(TaskType.TEXT_EMBEDDING, SETTINGS | {"provider": "meta"}, {})[0]
    assert check(TaskType.COMPLETION, SETTINGS | {"provider": "meta"}, {}) == []
    caps = AZURE.spec.tasks[TaskType.TEXT_EMBEDDING].caps
    assert (caps({"provider": "cohere"}).inputs, caps({"provider": "openai"}).inputs) == (96, 2048)
