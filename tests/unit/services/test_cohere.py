"""Cohere's own embeddings: the small fifth service."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.config.endpoints.services import TaskType
from penstock.tasks.services.base import EmbedCall, Refused
from penstock.workers.lanes.outcome import OutcomeKind
from penstock.workers.results.types import Usage
from support.wire import answer, body_of, endpoint, service

COHERE = service("cohere")


def target(**settings: Any) -> Any:
    return endpoint("cohere", "text_embedding", {"model_id": "embed-v4.0"} | settings)


@pytest.mark.parametrize(
    ("url", "sent_to"),
    [
        (None, "https://api.cohere.com/v2/embed"),
        ("http://h:9", "http://h:9/v2/embed"),
        ("http://h:9/v2/", "http://h:9/v2/embed"),
        ("http://h:9/v2/embed", "http://h:9/v2/embed"),
    ],
)
def test_the_request_is_cohere_s(url: str | None, sent_to: str) -> None:
    settings = {"url": url} if url else {}
    call = EmbedCall(["a", "b"], task_settings={"truncate": "END", "parameters": {"priority": 1}})
    request = COHERE.embed_request(target(dimensions=256, **settings), call)
    assert request.url == sent_to
    assert request.headers["Authorization"] == "Bearer key-0123456789abcdef"
    assert body_of(request) == {
        "model": "embed-v4.0",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 256,
        "truncate": "END",
        "priority": 1,
    }


def test_the_purpose_of_the_call_goes_before_the_endpoint_s() -> None:
    def sent(input_type: str | None) -> str:
        call = EmbedCall(["a"], input_type, {"input_type": "clustering"})
        return str(body_of(COHERE.embed_request(target(), call))["input_type"])

    assert (sent("search"), sent(None)) == ("search_query", "clustering")


@pytest.mark.parametrize(("kind", "dtype"), [("float", np.float32), ("int8", np.int8), ("ubinary", np.uint8)])
def test_the_answer_has_vectors_by_type_and_what_was_billed(kind: str, dtype: Any) -> None:
    body = {"id": "1", "embeddings": {kind: [[1, 2], [3, 4]]}, "meta": {"billed_units": {"input_tokens": 6.0}}}
    found = COHERE.read_embeddings(target(embedding_type=kind), EmbedCall(["a", "b"]), answer(body))
    assert found.vectors.tolist() == [[1, 2], [3, 4]]
    assert found.vectors.dtype == dtype
    assert found.usage == Usage(6, 0, 6, requests=1)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_data"),
        ({"embeddings": {"int8": []}}, "missing_data"),
        ({"embeddings": {"float": []}}, "wrong_count"),
    ],
)
def test_an_answer_without_the_vectors_is_malformed(body: Any, code: str) -> None:
    with pytest.raises(Refused) as caught:
        COHERE.read_embeddings(target(), EmbedCall(["a"]), answer(body))
    assert (caught.value.outcome.kind, caught.value.outcome.code) == (OutcomeKind.MALFORMED, code)


MONTH = "You are using a Trial key, which is limited to 1000 API calls / month."
MINUTE = "You are using a Trial key, which is limited to 40 API calls / minute."
MANY = "invalid request: total number of texts must be at most 96 - received 97"


@pytest.mark.parametrize(
    ("status", "message", "outcome_kind", "code"),
    [
        (429, MONTH, OutcomeKind.QUOTA_EXHAUSTED, "trial_key_exhausted"),
        (429, MINUTE, OutcomeKind.RATE_LIMITED, "rate_limit_exceeded"),
        (402, "Please add or update your payment method", OutcomeKind.QUOTA_EXHAUSTED, "payment_required"),
        (400, MANY, OutcomeKind.TOO_LARGE, "too_many_inputs"),
        (400, "too many tokens: total number of tokens in the input must be less than 512", OutcomeKind.INPUT_REFUSED,
         "input_too_long"),
        (401, "invalid api token", OutcomeKind.UNAUTHORIZED, "invalid_api_key"),
        (404, "model 'x' not found, make sure the correct model ID was used", OutcomeKind.NOT_FOUND, "model_not_found"),
        (498, "blocked output", OutcomeKind.INPUT_REFUSED, "content_filter"),
        (503, "", OutcomeKind.SERVER_ERROR, "server_error"),
    ],
)  # fmt: skip
def test_the_table_of_errors(status: int, message: str, outcome_kind: OutcomeKind, code: str) -> None:
    outcome = COHERE.refusal(answer({"id": "1", "message": message}, status))
    assert (outcome.kind, outcome.code) == (outcome_kind, code)


def test_its_declaration_is_elasticsearch_s() -> None:
    task = COHERE.spec.tasks[TaskType.TEXT_EMBEDDING]
    assert (task.requests_per_minute, task.caps({}).inputs) == (10000, 96)
    required = {setting.name for setting in task.service_settings if setting.required}
    assert required == {"api_key", "model_id"}
