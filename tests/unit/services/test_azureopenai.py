"""Azure OpenAI: addresses, keys and tokens, chat on your data, what it takes and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.endpoints.services import TaskType
from penstock.tasks.services.base import CompleteCall, EmbedCall, ImageCall, Refused
from penstock.workers.lanes.outcome import OutcomeKind
from support.wire import answer, body_of, endpoint, service

AZURE = service("azureopenai")
SETTINGS = {"resource_name": "res", "deployment_id": "my deploy", "api_version": "2024-10-21"}
ROOT = "https://res.openai.azure.com/openai/deployments/my%20deploy"


def target(task_type: str = "text_embedding", secrets: Any = None, **settings: Any) -> Any:
    return endpoint("azureopenai", task_type, SETTINGS | settings, secrets)


def test_the_deployment_and_the_api_version_are_in_the_address_and_the_model_is_not_in_the_body() -> None:
    request = AZURE.embed_request(target(dimensions=8), EmbedCall(["a\nb"], task_settings={"user": "u"}))
    assert request.url == f"{ROOT}/embeddings?api-version=2024-10-21"
    # Newlines are left alone: later models do not mind them.
    assert body_of(request) == {"input": ["a\nb"], "encoding_format": "base64", "dimensions": 8, "user": "u"}
    assert request.headers["api-key"] == "key-0123456789abcdef"
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("call", "route"),
    [
        (CompleteCall("a"), "/chat/completions"),
        (CompleteCall(messages=[{"role": "user", "content": "a"}]), "/chat/completions"),
        (CompleteCall(["Once upon a time"], parameters={"max_tokens": 5}), "/completions"),
        (CompleteCall("a", parameters={"dataSources": []}), "/extensions/chat/completions"),
        (CompleteCall("a", parameters={"data_sources": []}), "/chat/completions"),
    ],
)
def test_a_completion_goes_to_the_route_that_takes_it(call: CompleteCall, route: str) -> None:
    request = AZURE.complete_request(target("completion"), call)
    assert request.url == f"{ROOT}{route}?api-version=2024-10-21"
    assert "model" not in body_of(request)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/", "http://127.0.0.1:9/openai"])
def test_a_url_stands_in_for_the_resource_s_address(url: str) -> None:
    request = AZURE.embed_request(target(url=url), EmbedCall(["a"]))
    assert request.url == "http://127.0.0.1:9/openai/deployments/my%20deploy/embeddings?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("secrets", "header"),
    [
        ({"entra_id": "t1"}, ("Authorization", "Bearer t1")),
        ({"client_secret": "s", "access_token": "t2"}, ("Authorization", "Bearer t2")),
        ({"api_key": "k"}, ("api-key", "k")),
    ],
)
def test_there_are_three_ways_to_authenticate(secrets: dict[str, str], header: tuple[str, str]) -> None:
    headers = AZURE.embed_request(target(secrets=secrets), EmbedCall(["a"])).headers
    assert headers[header[0]] == header[1]
    assert ("api-key" in headers) != ("Authorization" in headers)
    assert not any(value == "s" for value in headers.values())


SOURCE = {"type": "AzureCognitiveSearch", "parameters": {"endpoint": "https://s", "indexName": "i"}}


def test_chat_on_your_data_has_its_headers_and_keys_from_the_endpoint() -> None:
    secrets = {"api_key": "k", "chatgpt_key": "ck", "search_key": "sk"}
    own = {"type": "x", "parameters": {"key": "own"}}
    call = CompleteCall(
        messages=[{"role": "user", "content": "q"}],
        task_settings={"chatgpt_url": "https://c"},
        parameters={"dataSources": [SOURCE, own]},
    )
    request = AZURE.complete_request(target("chat_completion", secrets), call)
    assert (request.headers["chatgpt_url"], request.headers["chatgpt_key"]) == ("https://c", "ck")
    sources = body_of(request)["dataSources"]
    assert [source["parameters"]["key"] for source in sources] == ["sk", "own"]
    assert sources[0]["parameters"]["indexName"] == "i"
    assert "chatgpt_url" not in body_of(request)
    assert "key" not in SOURCE["parameters"]


def test_chat_on_your_data_s_keys_go_nowhere_else() -> None:
    secrets = {"api_key": "k", "chatgpt_key": "ck", "search_key": "sk"}
    request = AZURE.complete_request(target("chat_completion", secrets), CompleteCall("a"))
    assert b"sk" not in request.body
    assert not {"chatgpt_url", "chatgpt_key"} & set(request.headers)


def test_an_answer_from_chat_on_your_data_has_the_assistant_s_words_and_what_was_looked_up() -> None:
    messages = [
        {"role": "tool", "content": '{"citations": []}', "end_turn": False},
        {"role": "assistant", "content": "Azure is a cloud. [doc1]", "end_turn": True},
    ]
    body = {"id": "1", "model": "", "object": "chat.completion", "choices": [{"index": 0, "messages": messages}]}
    found = AZURE.read_completion(target("completion"), CompleteCall("a"), answer(body))
    assert found.choices[0].text == "Azure is a cloud. [doc1]"
    assert found.extra["messages"] == messages


def test_filtered_output_is_an_answer_with_its_reason() -> None:
    results = {"hate": {"filtered": True, "severity": "high"}}
    body = {
        "choices": [{"index": 0, "finish_reason": "content_filter", "content_filter_results": results}],
        "prompt_filter_results": [{"prompt_index": 0}],
    }
    found = AZURE.read_completion(target("completion"), CompleteCall("a"), answer(body))
    assert (found.choices[0].finish_reason, found.choices[0].text) == ("content_filter", "")
    assert found.extra["choices"] == [{"content_filter_results": results}]
    assert found.extra["prompt_filter_results"] == [{"prompt_index": 0}]


PROMPT_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {
            "hate": {"filtered": True, "severity": "high"}, "jailbreak": {"filtered": False, "detected": False}}},
    }
}  # fmt: skip
IMAGE_FILTER = {
    "error": {
        "code": "content_policy_violation", "type": "invalid_request_error",
        "inner_error": {"code": "ResponsibleAIPolicyViolation",
                        "content_filter_results": {"jailbreak": {"filtered": True}}},
        "message": "Your request was rejected as a result of our safety system.",
    }
}  # fmt: skip


@pytest.mark.parametrize(("body", "found"), [(PROMPT_FILTER, "hate"), (IMAGE_FILTER, "jailbreak")])
def test_a_filtered_prompt_names_its_categories_in_either_spelling(body: Any, found: str) -> None:
    outcome = AZURE.refusal(answer(body, 400))
    assert (outcome.kind, outcome.code) == (OutcomeKind.INPUT_REFUSED, "content_filter")
    assert outcome.message.endswith(f"filtered: {found})")


def test_images_are_made_at_once_from_2023_12_on() -> None:
    for version in ("2023-12-01-preview", "2024-02-01", "2025-04-01-preview"):
        request = AZURE.image_request(target("image_generation", api_version=version), ImageCall("a", {}, {"n": 1}))
        assert request.url == f"{ROOT}/images/generations?api-version={version}"
        assert body_of(request) == {"prompt": "a", "n": 1}


def check(task_type: str = "text_embedding", **settings: Any) -> list[str]:
    return AZURE.spec.check(TaskType(task_type), settings, {})


def test_the_endpoint_s_own_rules_name_the_field() -> None:
    assert check(**SETTINGS, api_key="k") == []
    assert check(url="http://h", api_key="k") == []
    assert check(api_key="k") == ["[service_settings] does not contain the required setting [resource_name]"]
    assert "[resource_name]" in check(resource_name="evil.com/")[0]
    assert "[api_version]" in check("image_generation", **(SETTINGS | {"api_version": "2023-05-15"}))[0]
    assert check(**SETTINGS, client_secret="s") == [
        f"[service_settings] does not contain the required setting [{name}]"
        for name in ("client_id", "scopes", "tenant_id")
    ]
    assert check(**SETTINGS, api_key="k", client_id="c") == ["[service_settings] [client_id] goes with [client_secret]"]


def test_a_deployment_has_one_quota_whoever_asks() -> None:
    account = AZURE.spec.account
    assert account(SETTINGS | {"api_key": "a"}) == account(SETTINGS | {"entra_id": "b", "api_version": "x"})
    assert account(SETTINGS) != account(SETTINGS | {"deployment_id": "other"})


def test_the_defaults_are_elasticsearch_s() -> None:
    tasks = AZURE.spec.tasks
    assert tasks[TaskType.TEXT_EMBEDDING].requests_per_minute == 1440
    assert tasks[TaskType.COMPLETION].requests_per_minute == tasks[TaskType.CHAT_COMPLETION].requests_per_minute == 120
    caps = tasks[TaskType.TEXT_EMBEDDING].caps({"max_input_tokens": 500})
    assert (caps.inputs, caps.input_tokens, caps.request_tokens) == (2048, 500, None)


def test_a_filtered_error_status_is_refused_by_the_reader_too() -> None:
    with pytest.raises(Refused) as caught:
        AZURE.read_completion(target("completion"), CompleteCall("a"), answer(PROMPT_FILTER, 400))
    assert caught.value.outcome.code == "content_filter"
