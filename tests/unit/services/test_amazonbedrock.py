"""Amazon Bedrock: signatures, Titan and Cohere, Converse, event streams, the table of errors."""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from typing import Any

import botocore.session
import httpx
import pytest
import yarl
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.endpoints.services import TaskType
from penstock.config.errors import ConfigurationError, InputInvalid
from penstock.tasks.services.base import CompleteCall, EmbedCall, Refused
from penstock.workers.lanes.outcome import OutcomeKind
from penstock.workers.results.types import Usage
from support.wire import answer, body_of, endpoint, service

BEDROCK = service("amazonbedrock")
MODEL = botocore.session.Session().get_service_model("bedrock-runtime")
TITAN = {"model": "amazon.titan-embed-text-v2:0", "region": "us-east-1", "provider": "amazontitan"}
COHERE = {"model": "cohere.embed-english-v3", "region": "us-east-1", "provider": "cohere"}
CLAUDE = {"model": "anthropic.claude-3-haiku-20240307-v1:0", "region": "eu-west-1", "provider": "anthropic"}
KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"


def target(settings: Any, task_type: str = "text_embedding", secrets: Any = None) -> Any:
    return endpoint("amazonbedrock", task_type, settings, secrets or KEYS)


def refused(call: Any) -> Any:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.outcome


def test_a_request_is_signed_for_bedrock() -> None:
    request = BEDROCK.embed_request(target(TITAN), EmbedCall(["a"]))
    assert request.url == f"{HOST}/model/amazon.titan-embed-text-v2:0/invoke"
    authorization = request.headers["Authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/bedrock/aws4_request" in authorization
    assert KEYS["secret_key"] not in str(dict(request.headers))
    assert body_of(request) == {"inputText": "a"}


def test_the_signature_is_the_one_that_botocore_s_own_client_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    request = BEDROCK.embed_request(target(TITAN), EmbedCall(["a"]))
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    names = request.headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    sent = {name: value for name, value in request.headers.items() if name.lower() in names}
    again = AWSRequest("POST", request.url, headers=sent, data=request.body)
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials(KEYS["access_key"], KEYS["secret_key"]), "bedrock", "us-east-1")
    canonical = signer.canonical_request(again)
    # What is sent, encoded once more, as every service of AWS but S3 wants it.
    assert canonical.splitlines()[1] == "/model/amazon.titan-embed-text-v2%3A0/invoke"
    signature = signer.signature(signer.string_to_sign(again, canonical), again)
    assert request.headers["Authorization"].endswith(f"Signature={signature}")


def test_temporary_keys_send_their_token_and_a_bearer_key_is_not_signed() -> None:
    request = BEDROCK.embed_request(target(TITAN, secrets=KEYS | {"session_token": "st"}), EmbedCall(["a"]))
    assert request.headers["X-Amz-Security-Token"] == "st"
    request = BEDROCK.embed_request(target(TITAN, secrets={"api_key": "bk"}), EmbedCall(["a"]))
    assert request.headers["Authorization"] == "Bearer bk"
    assert "X-Amz-Date" not in request.headers


def test_without_botocore_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore.auth", "botocore.eventstream"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"penstock\[bedrock\]"):
        BEDROCK.embed_request(target(TITAN), EmbedCall(["a"]))
    with pytest.raises(ConfigurationError, match=r"penstock\[bedrock\]"):
        BEDROCK.stream_reader(target(CLAUDE, "completion"), CompleteCall("a"))


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({"region": "cn-north-1"}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ({"url": "http://127.0.0.1:9/"}, "http://127.0.0.1:9"),
    ],
)
def test_china_and_vpc_endpoints_have_their_own_addresses(settings: Any, host: str) -> None:
    request = BEDROCK.embed_request(target(TITAN | settings), EmbedCall(["a"]))
    assert request.url.startswith(f"{host}/model/")


def test_what_is_signed_is_what_every_client_sends() -> None:
    for model in (TITAN["model"], "arn:aws:bedrock:us-east-1:1:inference-profile/us.x"):
        url = BEDROCK.embed_request(target(TITAN | {"model": model}), EmbedCall(["a"])).url
        assert str(yarl.URL(url)) == str(httpx.URL(url)) == url


def test_an_arn_is_one_segment_of_the_path() -> None:
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.x"
    request = BEDROCK.embed_request(target(TITAN | {"model": arn}), EmbedCall(["a"]))
    assert request.url == f"{HOST}/model/arn:aws:bedrock:us-east-1:1:inference-profile%2Fus.x/invoke"


def test_titan_takes_one_text() -> None:
    request = BEDROCK.embed_request(target(TITAN | {"dimensions": 256}), EmbedCall(["a"]))
    assert body_of(request) == {"inputText": "a", "dimensions": 256}
    with pytest.raises(InputInvalid, match="one text"):
        BEDROCK.embed_request(target(TITAN), EmbedCall(["a", "b"]))


@pytest.mark.parametrize(
    "body",
    [
        {"embedding": [1, 2], "inputTextTokenCount": 5, "embeddingsByType": {"float": [1, 2]}},
        {"inputTextTokenCount": 5, "embeddingsByType": {"float": [1, 2]}},
    ],
)
def test_titan_gives_one_vector_and_its_tokens(body: Any) -> None:
    found = BEDROCK.read_embeddings(target(TITAN), EmbedCall(["a"]), answer(body))
    assert found.vectors.tolist() == [[1, 2]]
    assert found.usage == Usage(5, 0, 5, requests=1)
    assert found.model == TITAN["model"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, "search_document"),
        ("ingest", "search_document"),
        ("search", "search_query"),
        ("clustering", "clustering"),
    ],
)
def test_cohere_takes_many_texts_and_their_purpose(given: str | None, sent: str) -> None:
    request = BEDROCK.embed_request(target(COHERE), EmbedCall(["a", "b"], given, {"truncate": "END"}))
    assert body_of(request) == {"texts": ["a", "b"], "input_type": sent, "truncate": "END"}


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], {"float": [[1, 2], [3, 4]]}])
def test_cohere_gives_its_vectors_bare_or_by_type_and_its_tokens_in_a_header(rows: Any) -> None:
    body = {"embeddings": rows, "id": "1", "response_type": "embeddings_floats", "texts": ["a", "b"]}
    response = answer(body, x_amzn_bedrock_input_token_count="7")
    found = BEDROCK.read_embeddings(target(COHERE), EmbedCall(["a", "b"]), response)
    assert found.vectors.tolist() == [[1, 2], [3, 4]]
    assert found.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    ("settings", "body", "code"),
    [
        (TITAN, {}, "bad_vector"),
        (TITAN, {"embedding": [1, None]}, "not_finite"),
        (TITAN | {"dimensions": 3}, {"embedding": [1, 2]}, "wrong_dimensions"),
        (COHERE, {}, "missing_data"),
        (COHERE, {"embeddings": [[1], [2]]}, "wrong_count"),
    ],
)
def test_a_wrong_answer_is_malformed(settings: Any, body: Any, code: str) -> None:
    outcome = refused(lambda: BEDROCK.read_embeddings(target(settings), EmbedCall(["a"]), answer(body)))
    assert (outcome.kind, outcome.code) == (OutcomeKind.MALFORMED, code)


def converse(call: CompleteCall, task_type: str = "chat_completion") -> dict[str, Any]:
    body = body_of(BEDROCK.complete_request(target(CLAUDE, task_type), call))
    shape = MODEL.operation_model("Converse").input_shape
    given = json.loads(json.dumps(body))
    for message in given["messages"]:  # botocore wants bytes where JSON has base64
        for block in message["content"]:
            if "image" in block:
                block["image"]["source"]["bytes"] = base64.b64decode(block["image"]["source"]["bytes"])
    report = ParamValidator().validate({"modelId": "m"} | given, shape)
    assert not report.has_errors(), report.generate_report()
    return body


def test_openai_s_messages_and_parameters_become_converse_s() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    use = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    png = base64.b64encode(b"png").decode()
    call = CompleteCall(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "user", "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}}]},
            {"role": "assistant", "content": None, "tool_calls": [use]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        task_settings={"temperature": 0.5, "top_k": 10},
        parameters={"max_tokens": 9, "top_p": 0.9, "stop": "x", "tools": [tool], "tool_choice": "required"},
    )  # fmt: skip
    assert converse(call) == {
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [
                {"text": "Hello"}, {"text": "Look"}, {"image": {"format": "png", "source": {"bytes": png}}}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c1", "name": "f", "input": {"a": 1}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "42"}]}}]},
        ],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]},
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}}],
            "toolChoice": {"any": {}},
        },
        "additionalModelRequestFields": {"top_k": 10},
    }  # fmt: skip


def test_a_prompt_has_64_new_tokens_by_default_and_a_chat_as_many_as_it_likes() -> None:
    assert converse(CompleteCall("a"), "completion") == {
        "messages": [{"role": "user", "content": [{"text": "a"}]}],
        "inferenceConfig": {"maxTokens": 64},
    }
    assert "inferenceConfig" not in converse(CompleteCall("a"))


def test_converse_s_own_fields_and_blocks_go_through() -> None:
    call = CompleteCall(
        messages=[{"role": "user", "content": [{"text": "a"}, {"cachePoint": {"type": "default"}}]}],
        parameters={"system": [{"text": "s"}], "guardrailConfig": {"guardrailIdentifier": "g"}},
    )
    body = converse(call)
    assert body["system"] == [{"text": "s"}]
    assert body["guardrailConfig"] == {"guardrailIdentifier": "g"}
    assert body["messages"][0]["content"][1] == {"cachePoint": {"type": "default"}}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "critic", "content": "a"}, "role"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "part"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://i"}}]}, "data URL"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;"}}]}, "data URL"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}, "no JSON"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "name"),
    ],
)  # fmt: skip
def test_what_converse_cannot_express_is_told_to_the_caller(message: Any, words: str) -> None:
    with pytest.raises(InputInvalid, match=words):
        BEDROCK.complete_request(target(CLAUDE, "completion"), CompleteCall(messages=[message]))


def complete(body: Any) -> Any:
    return BEDROCK.read_completion(target(CLAUDE, "completion"), CompleteCall("a"), answer(body))


def test_an_answer_of_converse_reads_like_any_other() -> None:
    use = {"toolUseId": "c1", "name": "f", "input": {"a": 1}}
    found = complete(
        {
            "output": {
                "message": {"role": "assistant", "content": [{"text": "Hel"}, {"text": "lo"}, {"toolUse": use}]}
            },
            "stopReason": "tool_use",
            "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12},
            "metrics": {"latencyMs": 5},
        }
    )
    choice = found.choices[0]
    assert (choice.text, choice.finish_reason) == ("Hello", "tool_calls")
    assert choice.tool_calls == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    assert (found.usage, found.model) == (Usage(9, 3, 12, requests=1), CLAUDE["model"])
    assert found.extra["stopReason"] == "tool_use"


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
        ("content_filtered", "content_filter"), ("guardrail_intervened", "content_filter"), ("novel", "novel"),
    ],
)  # fmt: skip
def test_stop_reasons_have_openai_s_names(reason: str, ours: str) -> None:
    body = {"output": {"message": {"content": []}}, "stopReason": reason}
    assert complete(body).choices[0].finish_reason == ours


@pytest.mark.parametrize("body", [{}, {"output": {}}, {"output": {"message": {"content": "text"}}}])
def test_an_answer_without_a_message_is_malformed(body: Any) -> None:
    assert refused(lambda: complete(body)).code == "no_choices"


def frame(kind: str, body: Any, header: str = ":event-type") -> bytes:
    """One message of an AWS event stream: lengths, CRC, headers of type string, payload, CRC."""
    payload = json.dumps(body).encode()
    headers = b""
    message_type = "exception" if header == ":exception-type" else "event"
    for name, value in ((":message-type", message_type), (header, kind), (":content-type", "application/json")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


STREAM = b"".join(
    [
        frame("messageStart", {"role": "assistant"}),
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "lo"}}),
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "c1", "name": "f"}}}),
        frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"a":'}}}),
        frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": " 1}"}}}),
        frame("messageStop", {"stopReason": "tool_use"}),
    ]
)
METADATA = frame("metadata", {"usage": {"inputTokens": 9, "outputTokens": 3}, "metrics": {"latencyMs": 1}})


def stream() -> Any:
    request = BEDROCK.complete_request(target(CLAUDE, "chat_completion"), CompleteCall("a", stream=True))
    assert request.url.endswith("/converse-stream")
    return BEDROCK.stream_reader(target(CLAUDE, "chat_completion"), CompleteCall("a", stream=True))


@given(st.lists(st.integers(0, len(STREAM + METADATA)), max_size=8))
def test_an_event_stream_gives_its_pieces_however_it_is_split(cuts: list[int]) -> None:
    data, reader = STREAM + METADATA, stream()
    ends = [0, *sorted(cuts), len(data)]
    deltas = [delta for n in range(len(ends) - 1) for delta in reader.feed(data[ends[n] : ends[n + 1]])]
    reader.close()
    assert "".join(delta.text for delta in deltas) == "Hello"
    assert (deltas[-1].done, deltas[-1].usage) == (True, Usage(9, 3, 12, requests=1))
    choice = reader.completion().choices[0]
    assert (choice.text, choice.finish_reason) == ("Hello", "tool_calls")
    assert choice.tool_calls == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    assert reader.completion().model == CLAUDE["model"]


def test_an_event_stream_is_complete_with_message_stop_and_cut_without() -> None:
    whole = stream()
    list(whole.feed(STREAM))
    whole.close()
    cut = stream()
    list(cut.feed(STREAM[: len(STREAM) - 10]))
    assert refused(cut.close).code == "stream_cut"
    assert cut.completion().choices[0].text == "Hello"


@pytest.mark.parametrize(
    ("kind", "outcome_kind", "code"),
    [
        ("throttlingException", OutcomeKind.RATE_LIMITED, "throttling"),
        ("modelStreamErrorException", OutcomeKind.SERVER_ERROR, "model_stream_error"),
        ("internalServerException", OutcomeKind.SERVER_ERROR, "server_error"),
        ("serviceUnavailableException", OutcomeKind.SERVER_ERROR, "service_unavailable"),
        ("validationException", OutcomeKind.INPUT_REFUSED, "invalid_request"),
        ("novelException", OutcomeKind.SERVER_ERROR, "server_error"),
    ],
)
def test_an_exception_in_mid_stream_has_its_fate(kind: str, outcome_kind: OutcomeKind, code: str) -> None:
    outcome = refused(lambda: list(stream().feed(frame(kind, {"message": "m"}, ":exception-type"))))
    assert (outcome.kind, outcome.code) == (outcome_kind, code)


def test_a_damaged_event_stream_is_malformed() -> None:
    damaged = bytearray(STREAM)
    damaged[20] ^= 1
    assert refused(lambda: list(stream().feed(bytes(damaged)))).code == "bad_event_stream"


LONG = "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 10000"


@pytest.mark.parametrize(
    ("kind", "status", "message", "outcome_kind", "code"),
    [
        ("AccessDeniedException", 403, "m", OutcomeKind.UNAUTHORIZED, "access_denied"),
        ("UnrecognizedClientException", 403, "m", OutcomeKind.UNAUTHORIZED, "invalid_api_key"),
        ("InvalidSignatureException", 403, "m", OutcomeKind.UNAUTHORIZED, "invalid_signature"),
        ("ExpiredTokenException", 403, "m", OutcomeKind.UNAUTHORIZED, "expired_token"),
        ("ResourceNotFoundException", 404, "m", OutcomeKind.NOT_FOUND, "resource_not_found"),
        ("ValidationException", 400, "The provided model identifier is invalid.",
         OutcomeKind.NOT_FOUND, "model_not_found"),
        ("ValidationException", 400, "Invocation of model ID x with on-demand throughput isn't supported.",
         OutcomeKind.REQUEST_REFUSED, "validation"),
        ("ValidationException", 400, LONG, OutcomeKind.INPUT_REFUSED, "input_too_long"),
        ("ValidationException", 400, "Malformed input request: expected maxLength: 2048, actual: 5000",
         OutcomeKind.INPUT_REFUSED, "input_too_long"),
        ("ValidationException", 400, "Input is too long for requested model.",
         OutcomeKind.INPUT_REFUSED, "input_too_long"),
        ("ValidationException", 400, "text must not be empty", OutcomeKind.INPUT_REFUSED, "invalid_request"),
        ("ServiceQuotaExceededException", 400, "m", OutcomeKind.QUOTA_EXHAUSTED, "service_quota_exceeded"),
        ("ModelTimeoutException", 408, "m", OutcomeKind.SERVER_ERROR, "model_timeout"),
        ("ModelErrorException", 424, "m", OutcomeKind.SERVER_ERROR, "model_error"),
        ("ThrottlingException", 429, "Too many tokens, please wait before trying again.", OutcomeKind.RATE_LIMITED,
         "throttling"),
        ("ThrottlingException", 400, "Rate exceeded", OutcomeKind.RATE_LIMITED, "throttling"),
        ("ModelNotReadyException", 429, "m", OutcomeKind.RATE_LIMITED, "model_not_ready"),
        ("InternalServerException", 500, "m", OutcomeKind.SERVER_ERROR, "server_error"),
        ("ServiceUnavailableException", 503, "m", OutcomeKind.SERVER_ERROR, "service_unavailable"),
        ("", 429, "Too many requests, please wait before trying again.",
         OutcomeKind.RATE_LIMITED, "rate_limit_exceeded"),
        ("", 500, "", OutcomeKind.SERVER_ERROR, "server_error"),
    ],
)  # fmt: skip
def test_the_table_of_errors(kind: str, status: int, message: str, outcome_kind: OutcomeKind, code: str) -> None:
    suffix = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
    outcome = BEDROCK.refusal(answer({"message": message}, status, x_amzn_errortype=kind + suffix if kind else ""))
    assert (outcome.kind, outcome.code, outcome.status) == (outcome_kind, code, status)


def test_the_statuses_of_the_table_are_botocore_s() -> None:
    for error in MODEL.operation_model("InvokeModel").error_shapes:
        status = error.metadata["error"]["httpStatusCode"]
        outcome = BEDROCK.refusal(answer({"message": "m"}, status, x_amzn_errortype=error.name))
        assert outcome.kind is not OutcomeKind.MALFORMED
        assert outcome.code


def test_the_rules_of_elasticsearch_and_our_own_name_the_field() -> None:
    check = BEDROCK.spec.check
    base = TITAN | KEYS
    assert check(TaskType.TEXT_EMBEDDING, base, {}) == []
    assert check(TaskType.TEXT_EMBEDDING, TITAN | {"access_key": "a"}, {}) == [
        "[service_settings] does not contain the required setting [secret_key]"
    ]
    assert "[secret_key]" in check(TaskType.TEXT_EMBEDDING, TITAN | {"api_key": "a", "secret_key": "s"}, {})[0]
    assert "[region]" in check(TaskType.TEXT_EMBEDDING, base | {"region": "evil.com/"}, {})[0]
    assert "[meta]" in check(TaskType.TEXT_EMBEDDING, base | {"provider": "meta"}, {})[0]
    assert "[amazontitan]" in check(TaskType.CHAT_COMPLETION, base, {})[0]
    assert check(TaskType.COMPLETION, base | {"provider": "meta"}, {"top_k": 1}) == [
        "The [top_k] task parameter is not available for provider [meta]"
    ]
    assert "[truncate]" in check(TaskType.TEXT_EMBEDDING, base, {"truncate": "END"})[0]
    caps = BEDROCK.spec.tasks[TaskType.TEXT_EMBEDDING].caps
    assert (caps(TITAN).inputs, caps(COHERE).inputs, caps(TITAN).input_tokens) == (1, 96, 8192)
