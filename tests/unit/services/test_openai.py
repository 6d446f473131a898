"""OpenAI and compatible servers: addresses, requests, whole answers."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from penstock.config.errors import InputInvalid
from penstock.tasks.services.base import CompleteCall, EmbedCall, ImageCall, Refused
from penstock.workers.lanes.outcome import OutcomeKind
from penstock.workers.results.types import Usage
from support.wire import answer, body_of, endpoint, service

OPENAI = service("openai")
SETTINGS = {"model_id": "text-embedding-3-small"}


def b64(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


def embeddings(*rows: Any, **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 8, "total_tokens": 8}} | more


def refused(call: Any) -> Any:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.outcome


@pytest.mark.parametrize(
    ("url", "task_type", "sent_to"),
    [
        (None, "text_embedding", "https://api.openai.com/v1/embeddings"),
        (None, "completion", "https://api.openai.com/v1/chat/completions"),
        (None, "image_generation", "https://api.openai.com/v1/images/generations"),
        ("http://localhost:8080", "text_embedding", "http://localhost:8080/v1/embeddings"),
        ("http://localhost:8080/", "text_embedding", "http://localhost:8080/v1/embeddings"),
        ("http://localhost:8080/v1", "text_embedding", "http://localhost:8080/v1/embeddings"),
        ("http://localhost:8080/v1/", "completion", "http://localhost:8080/v1/chat/completions"),
        ("http://localhost:8080/v1/embeddings", "text_embedding", "http://localhost:8080/v1/embeddings"),
        ("http://localhost:8080/custom/embed", "text_embedding", "http://localhost:8080/custom/embed"),
        ("https://r.openai.azure.com/openai/v1?api-version=preview", "text_embedding",
         "https://r.openai.azure.com/openai/v1/embeddings?api-version=preview"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "text_embedding",
         "https://generativelanguage.googleapis.com/v1beta/openai/embeddings"),
        ("https://gateway/v1/acct/gw/openai", "completion", "https://gateway/v1/acct/gw/openai/chat/completions"),
    ],
)  # fmt: skip
def test_a_url_is_the_whole_address_or_a_base(url: str | None, task_type: str, sent_to: str) -> None:
    settings = SETTINGS | ({"url": url} if url else {})
    target = endpoint("openai", task_type, settings)
    request = {
        "text_embedding": lambda: OPENAI.embed_request(target, EmbedCall(["a"])),
        "completion": lambda: OPENAI.complete_request(target, CompleteCall("a")),
        "image_generation": lambda: OPENAI.image_request(target, ImageCall("a")),
    }[task_type]()
    assert (request.method, request.url) == ("POST", sent_to)


def test_an_embedding_request_asks_for_base64_and_has_key_organization_and_settings() -> None:
    target = endpoint("openai", "text_embedding", SETTINGS | {"dimensions": 128, "organization_id": "org-1"})
    request = OPENAI.embed_request(target, EmbedCall(["a", "b\nc"], task_settings={"user": "u"}))
    assert body_of(request) == {
        "input": ["a", "b\nc"],
        "model": "text-embedding-3-small",
        "encoding_format": "base64",
        "dimensions": 128,
        "user": "u",
    }
    assert request.headers["Authorization"] == "Bearer key-0123456789abcdef"
    assert request.headers["OpenAI-Organization"] == "org-1"
    assert request.headers["Content-Type"] == "application/json"
    assert "key-0123456789abcdef" not in repr(request)


def test_task_settings_choose_the_encoding_headers_newlines_and_any_other_field() -> None:
    call = EmbedCall(
        ["a\nb"],
        task_settings={
            "encoding_format": "float",
            "replace_newlines": True,
            "headers": {"X-Team": "search", "content-type": "application/json; charset=utf-8"},
            "parameters": {"truncate_prompt_tokens": -1, "user": "from parameters"},
            "user": None,
        },
    )
    request = OPENAI.embed_request(endpoint("openai", "text_embedding", SETTINGS), call)
    assert body_of(request) == {
        "input": ["a b"],
        "model": "text-embedding-3-small",
        "encoding_format": "float",
        "truncate_prompt_tokens": -1,
    }
    assert request.headers["X-Team"] == "search"
    assert [v for k, v in request.headers.items() if k.lower() == "content-type"] == ["application/json; charset=utf-8"]


def test_an_access_token_goes_before_the_key() -> None:
    target = endpoint("openai", "text_embedding", SETTINGS, {"client_secret": "s", "access_token": "t"})
    assert OPENAI.embed_request(target, EmbedCall(["a"])).headers["Authorization"] == "Bearer t"


def test_half_a_surrogate_pair_is_one_input_s_fault() -> None:
    outcome = refused(
        lambda: OPENAI.embed_request(endpoint("openai", "text_embedding", SETTINGS), EmbedCall(["ok", "\ud800"]))
    )
    assert (outcome.kind, outcome.code, outcome.input_index) == (OutcomeKind.INPUT_REFUSED, "invalid_text", 1)


def read(body: Any, count: int = 2, settings: Any = SETTINGS, status: int = 200, **headers: str) -> Any:
    target = endpoint("openai", "text_embedding", settings)
    return OPENAI.read_embeddings(target, EmbedCall(["x"] * count), answer(body, status, **headers))


@pytest.mark.parametrize("rows", [([1, 2], [3, 4]), (b64(1, 2), b64(3, 4))])
def test_floats_and_base64_are_both_taken_whatever_was_asked(rows: Any) -> None:
    found = read(embeddings(*rows))
    assert found.vectors.tolist() == [[1, 2], [3, 4]]
    assert found.vectors.dtype == np.float32
    assert found.usage == Usage(8, 0, 8, requests=1)
    assert found.model == "m"


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, 0),
        ({}, 0),
        ("many", 0),
        ({"prompt_tokens": -5}, 0),
        ({"prompt_tokens": "8"}, 0),
        ({"prompt_tokens": True}, 0),
        ({"prompt_tokens": 10**30}, 0),
        ({"input_tokens": 8}, 8),
    ],
)
def test_absent_and_nonsense_usage_counts_as_nothing(usage: Any, tokens: int) -> None:
    assert read(embeddings([1], [2], usage=usage)).usage == Usage(tokens, 0, tokens, requests=1)


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        ("<html>login</html>", {"content_type": "text/html; charset=utf-8"}, "not_json"),
        (b'{"data": []}', {"content_type": "text/html"}, "not_json"),
        (b'{"data": [{"index": 0, "embed', {}, "not_json"),
        (b"", {}, "not_json"),
        (b'{"data": [{"index": 0, "embedding": [NaN]}]}', {}, "not_json"),
        ([1, 2], {}, "not_an_object"),
        ({}, {}, "missing_data"),
        (embeddings([1]), {}, "wrong_count"),
        (embeddings([1], [2], [3]), {}, "wrong_count"),
        (embeddings([1], [2, 3]), {}, "wrong_dimensions"),
        (embeddings([1], [None]), {}, "not_finite"),
        (embeddings([1], [1e39]), {}, "not_finite"),
        (embeddings([1], "%%%"), {}, "bad_vector"),
        ({"error": {"message": "boom", "type": "server_error"}}, {}, "error_in_answer"),
        ({"error": "boom"}, {}, "error_in_answer"),
        (embeddings([1], [2], error={"message": "half of it"}), {}, "error_in_answer"),
        ({"error": {"message": "upstream", "code": 502}}, {}, "error_in_answer"),
    ],
)
def test_a_200_that_is_not_what_was_asked_is_malformed(body: Any, headers: dict[str, Any], code: str) -> None:
    outcome = refused(lambda: read(body, **headers))
    assert (outcome.kind, outcome.code) == (OutcomeKind.MALFORMED, code)
    assert outcome.billed


@pytest.mark.parametrize(
    ("error", "outcome_kind"),
    [
        ({"code": "insufficient_quota", "message": "m"}, OutcomeKind.QUOTA_EXHAUSTED),
        ({"code": "content_filter", "message": "m"}, OutcomeKind.INPUT_REFUSED),
        ({"code": 429, "message": "Rate limited"}, OutcomeKind.RATE_LIMITED),
    ],
)
def test_an_error_inside_a_200_is_what_it_says_where_that_is_certain(
    error: dict[str, Any], outcome_kind: OutcomeKind
) -> None:
    assert refused(lambda: read({"error": error})).kind is outcome_kind


def test_a_null_error_is_none() -> None:
    assert read(embeddings([1], [2], error=None)).vectors.shape == (2, 1)


def test_an_answer_without_a_content_type_is_read() -> None:
    found = OPENAI.read_embeddings(
        endpoint("openai", "text_embedding", SETTINGS),
        EmbedCall(["x"]),
        type(answer({}))(200, {}, answer(embeddings([1])).body),
    )
    assert found.vectors.shape == (1, 1)


def test_the_dimensions_that_were_asked_for_are_checked() -> None:
    assert refused(lambda: read(embeddings([1], [2]), settings=SETTINGS | {"dimensions": 2})).code == "wrong_dimensions"
    call = EmbedCall(["x"], task_settings={"dimensions": 2})
    target = endpoint("openai", "text_embedding", SETTINGS)
    assert refused(lambda: OPENAI.read_embeddings(target, call, answer(embeddings([1])))).code == "wrong_dimensions"


def test_an_error_status_is_refused_and_never_repeats_the_key() -> None:
    body = {"error": {"message": "no access with key-0123456789abcdef", "code": "invalid_api_key"}}
    outcome = refused(lambda: read(body, status=401))
    assert outcome.kind is OutcomeKind.UNAUTHORIZED
    assert "key-0123456789abcdef" not in outcome.message


CHAT = endpoint("openai", "chat_completion", {"model_id": "gpt-4o"})


def test_a_prompt_is_the_user_s_one_message() -> None:
    request = OPENAI.complete_request(CHAT, CompleteCall("Hello", task_settings={"user": "u"}, parameters={"n": 2}))
    assert body_of(request) == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hello"}],
        "user": "u",
        "n": 2,
    }


def test_every_field_of_a_chat_goes_through_unknown_ones_too() -> None:
    parameters = {"tools": [{"type": "function"}], "response_format": {"type": "json_object"}, "stop": ["x"], "new": 1}
    messages: list[Any] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
    ]
    request = OPENAI.complete_request(CHAT, CompleteCall(messages=messages, parameters=parameters))
    assert body_of(request) == {"model": "gpt-4o", "messages": messages} | parameters


def test_streaming_asks_for_usage_unless_told_otherwise() -> None:
    request = OPENAI.complete_request(CHAT, CompleteCall("a", stream=True))
    assert body_of(request)["stream"] is True
    assert body_of(request)["stream_options"] == {"include_usage": True}
    assert request.headers["Accept"] == "text/event-stream"
    without = OPENAI.complete_request(CHAT, CompleteCall("a", stream=True, parameters={"stream_options": None}))
    assert "stream_options" not in body_of(without)
    whole = OPENAI.complete_request(CHAT, CompleteCall("a", parameters={"stream": True, "stream_options": {}}))
    assert {"stream", "stream_options"}.isdisjoint(body_of(whole))


@pytest.mark.parametrize(
    ("url", "prompt", "path"),
    [
        (None, ["a", "b"], "/v1/completions"),
        ("http://h/v1", ["a"], "/v1/completions"),
        ("http://h/v1/chat/completions", ["a"], "/v1/completions"),
        ("http://h/v1/completions", ["a"], "/v1/completions"),
        ("http://h/v1/completions", "a", "/v1/completions"),
        ("http://h/v1/completions/", "a", "/v1/completions/"),
    ],
)
def test_a_list_of_prompts_or_the_url_makes_it_a_legacy_completion(url: Any, prompt: Any, path: str) -> None:
    settings = {"model_id": "davinci-002"} | ({"url": url} if url else {})
    request = OPENAI.complete_request(
        endpoint("openai", "completion", settings), CompleteCall(prompt, parameters={"max_tokens": 5})
    )
    assert request.url.endswith(path)
    assert "chat" not in request.url
    assert body_of(request) == {"model": "davinci-002", "prompt": prompt, "max_tokens": 5}


def test_a_legacy_address_takes_no_messages_and_a_chat_needs_some() -> None:
    legacy = endpoint("openai", "completion", {"model_id": "m", "url": "http://h/v1/completions"})
    with pytest.raises(InputInvalid, match="chat/completions"):
        OPENAI.complete_request(legacy, CompleteCall(messages=[{"role": "user", "content": "a"}]))
    with pytest.raises(InputInvalid, match="messages"):
        OPENAI.complete_request(CHAT, CompleteCall())


def test_what_json_cannot_hold_is_told_to_the_caller() -> None:
    with pytest.raises(InputInvalid, match="JSON"):
        OPENAI.complete_request(CHAT, CompleteCall("a", parameters={"x": object()}))


def complete(body: Any, call: CompleteCall | None = None) -> Any:
    return OPENAI.read_completion(CHAT, call or CompleteCall("a"), answer(body))


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_chat_answer_has_choices_usage_model_and_the_rest() -> None:
    found = complete(
        {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024", "service_tier": None,
            "choices": [
                {"index": 1, "finish_reason": "tool_calls", "logprobs": None,
                 "message": {"role": "assistant", "content": None, "tool_calls": [CALL]}},
                {"index": 0, "finish_reason": "stop", "logprobs": {"content": []},
                 "message": {"role": "assistant", "content": "Hi"}},
            ],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
    )  # fmt: skip
    assert [(c.index, c.text, c.finish_reason) for c in found.choices] == [(0, "Hi", "stop"), (1, "", "tool_calls")]
    assert found.choices[1].tool_calls == [CALL]
    assert found.usage == Usage(9, 3, 12, requests=1)
    assert found.model == "gpt-4o-2024"
    assert found.extra["id"] == "chatcmpl-1"
    assert found.extra["choices"] == [{}, {"logprobs": {"content": []}}]


def test_text_in_parts_is_joined() -> None:
    parts = [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert complete({"choices": [{"message": {"role": "assistant", "content": parts}}]}).choices[0].text == "ab"


def test_a_legacy_answer_gives_each_prompt_its_choices() -> None:
    call = CompleteCall(["p", "q"], parameters={"n": 1})
    body = {"choices": [{"index": 1, "text": "b", "finish_reason": "length"}, {"index": 0, "text": "a"}]}
    assert [c.text for c in complete(body, call).choices] == ["a", "b"]
    assert refused(lambda: complete({"choices": body["choices"][:1]}, call)).code == "wrong_count"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "no_choices"),
        ({"choices": []}, "no_choices"),
        ({"choices": [1]}, "bad_choice"),
        ({"choices": [{"index": 0}]}, "bad_choice"),
        ({"choices": [{"message": "text"}]}, "bad_choice"),
        ({"error": {"message": "boom"}}, "error_in_answer"),
    ],
)
def test_an_answer_without_usable_choices_is_malformed(body: Any, code: str) -> None:
    outcome = refused(lambda: complete(body))
    assert (outcome.kind, outcome.code) == (OutcomeKind.MALFORMED, code)


IMAGES = endpoint("openai", "image_generation", {"model_id": "gpt-image-1"})


def test_an_image_request_carries_every_field() -> None:
    request = OPENAI.image_request(IMAGES, ImageCall("A chair", {"user": "u"}, {"n": 2, "size": "1024x1024"}))
    assert body_of(request) == {"model": "gpt-image-1", "prompt": "A chair", "user": "u", "n": 2, "size": "1024x1024"}


def images(body: Any, status: int = 200) -> Any:
    return OPENAI.read_image(IMAGES, ImageCall("a"), answer(body, status))


def test_images_come_as_addresses_or_base64_with_their_prompts() -> None:
    found = images(
        {"created": 1, "data": [{"url": "https://i/1", "revised_prompt": "A red chair"}, {"url": "https://i/2"}]}
    )
    assert (found.state, found.urls, found.b64) == ("SUCCEEDED", ("https://i/1", "https://i/2"), ())
    assert found.revised_prompts == ("A red chair", None)
    assert found.operation_id is None
    usage = {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105}
    found = images({"created": 1, "data": [{"b64_json": "aGk="}], "usage": usage})
    assert (found.b64, found.urls, found.usage) == (("aGk=",), (), Usage(5, 100, 105, requests=1))


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": [{}]}, {"data": ["x"]}, {"data": [{"url": ""}]}])
def test_an_answer_without_images_is_malformed(body: Any) -> None:
    outcome = refused(lambda: images(body))
    assert (outcome.kind, outcome.code) == (OutcomeKind.MALFORMED, "missing_data")


def test_openai_has_no_operations_to_poll_or_delete() -> None:
    assert OPENAI.delete_request(IMAGES, "https://api.openai.com/x") is None
    assert OPENAI.info_request(IMAGES) is None
    with pytest.raises(NotImplementedError):
        OPENAI.poll_request(IMAGES, "https://api.openai.com/x")
