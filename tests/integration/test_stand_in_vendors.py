"""The stand-in's wire formats beyond embeddings: completions, streams, images, and each vendor's own."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any

import botocore.session
import httpx
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from penstock.stand_in.options import options
from penstock.stand_in.server import listening
from penstock.stand_in.vectors import vector

CHAT = [{"role": "user", "content": "What is a penstock?"}]
DEPLOYMENT = "/openai/deployments/dep"
VERSION = {"api-version": "2024-10-21"}
PREVIEW = {"api-version": "2023-06-01-preview"}
SUBMIT = "/openai/images/generations:submit"
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        listening(options(given)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=90) as client,
    ):
        yield client


def events(text: str) -> list[Any]:
    """Return the data of each event; ``[DONE]`` as it is."""
    lines = [block.removeprefix("data: ") for block in text.split("\n\n") if block]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def chat(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"model": "m", "messages": CHAT, **more})


# Completions


async def test_a_chat_streams_the_same_text_as_it_answers_whole():
    async with serving(answer_tokens=12) as client:
        whole = (await chat(client, n=2)).json()
        chunks = events((await chat(client, n=2, stream=True, stream_options={"include_usage": True})).text)
    assert chunks[-1] == "[DONE]"
    assert (chunks[-2]["choices"], chunks[-2]["usage"]) == ([], whole["usage"])
    for index in range(2):
        mine = [choice for chunk in chunks[:-2] for choice in chunk["choices"] if choice["index"] == index]
        text = "".join(choice["delta"].get("content") or "" for choice in mine)
        assert text == whole["choices"][index]["message"]["content"]
        assert [choice["finish_reason"] for choice in mine][-1] == "stop"
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 24, "total_tokens": 29}


@pytest.mark.parametrize(
    ("more", "reason"),
    [({}, "stop"), ({"max_tokens": 3}, "length"), ({"max_completion_tokens": 3}, "length"), ({"stop": "a"}, "stop")],
)
async def test_a_completion_says_why_it_ended(more, reason):
    async with serving() as client:
        choice = (await chat(client, **more)).json()["choices"][0]
    assert choice["finish_reason"] == reason
    assert "a" not in choice["message"]["content"] if "stop" in more else True


async def test_tools_are_called_until_their_result_is_there():
    tools = [{"type": "function", "function": TOOL}]
    told = [*CHAT, {"role": "tool", "tool_call_id": "call_0001", "content": "rain"}]
    async with serving() as client:
        called = (await chat(client, tools=tools)).json()["choices"][0]
        chunks = events((await chat(client, tools=tools, stream=True)).text)
        after = (await chat(client, tools=tools, messages=told)).json()["choices"][0]
    function = called["message"]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", {"city": "water"})
    assert called["finish_reason"] == "tool_calls"
    deltas = [chunk["choices"][0]["delta"].get("tool_calls", [{}])[0] for chunk in chunks[:-1]]
    assert "".join(delta.get("function", {}).get("arguments", "") for delta in deltas) == function["arguments"]
    assert after["finish_reason"] == "stop"


async def test_json_is_answered_where_it_is_asked_for():
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    async with serving() as client:
        plain = (await chat(client, response_format={"type": "json_object"})).json()
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        fitting = (await chat(client, response_format=wanted)).json()
    assert set(json.loads(plain["choices"][0]["message"]["content"])) == {"answer"}
    assert json.loads(fitting["choices"][0]["message"]["content"]) == {"count": 7}


@pytest.mark.parametrize("kind", ["cut-stream", "error-stream", "malformed", "truncated"])
async def test_a_stream_may_end_badly(kind):
    async with serving(fault={kind: 1}) as client:
        if kind == "truncated":
            with pytest.raises(httpx.RemoteProtocolError):
                await chat(client, stream=True)
            return
        text = (await chat(client, stream=True)).text
    assert "[DONE]" not in text
    if kind == "malformed":
        with pytest.raises(json.JSONDecodeError):
            events(text)
    else:
        assert ("error" in events(text)[-1]) == (kind == "error-stream")


async def test_a_stream_sends_each_word_when_it_is_made():
    async with serving(token_delay_ms=60, answer_tokens=3) as client:
        request = client.build_request("POST", "/v1/chat/completions", json={"messages": CHAT, "stream": True})
        answer = await client.send(request, stream=True)
        parts = [part async for part in answer.aiter_raw()]
        await answer.aclose()
    assert len(parts) >= 5


async def test_legacy_completions_flatten_prompts_and_choices():
    sent = {"prompt": ["one", "two"], "n": 2, "max_tokens": 4, "echo": True}
    async with serving() as client:
        answer = (await client.post("/v1/completions", json=sent)).json()
        chunks = events((await client.post("/v1/completions", json={"prompt": "one", "stream": True})).text)
        filtered = (await client.post("/v1/completions", json={"prompt": "[[filtered-output]]"})).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [choice["text"].split()[0] for choice in answer["choices"]] == ["one", "one", "two", "two"]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert (chunks[-1], chunks[-2]["choices"][0]["finish_reason"], len(chunks)) == ("[DONE]", "length", 17)
    assert filtered["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("path", "sent", "part"),
    [
        ("chat/completions", {}, "messages"),
        ("chat/completions", {"messages": ["hi"]}, "messages[0]"),
        ("chat/completions", {"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ("chat/completions", {"messages": CHAT, "n": 129}, "n"),
        ("chat/completions", {"messages": CHAT, "max_tokens": 0}, "max_tokens"),
        ("chat/completions", {"messages": CHAT, "stop": ["a"] * 5}, "stop"),
        ("chat/completions", {"messages": CHAT, "max_tokens": 100_000}, "messages"),
        ("chat/completions", {"messages": CHAT, "logprobs": True}, "logprobs"),
        ("completions", {"prompt": {}}, "prompt"),
        ("completions", {"prompt": "a", "max_tokens": "many"}, "max_tokens"),
        ("images/generations", {}, "prompt"),
        ("images/generations", {"prompt": "a" * 1001}, "prompt"),
        ("images/generations", {"prompt": "a", "n": 11}, "n"),
        ("images/generations", {"prompt": "a", "n": 2, "model": "dall-e-3"}, "n"),
        ("images/generations", {"prompt": "a", "model": "gpt-image-1", "response_format": "url"}, "response_format"),
    ],
)
async def test_a_wrong_request_is_a_400_that_names_its_parameter(path, sent, part):
    async with serving(context_tokens=1000, unsupported="logprobs") as client:
        answer = await client.post(f"/v1/{path}", json=sent)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, part)


async def test_pictures_come_as_base64_and_as_urls_that_lead_to_them():
    async with serving() as client:
        linked = (await client.post("/v1/images/generations", json={"prompt": "An avocado chair", "n": 2})).json()
        picture = await client.get(linked["data"][1]["url"])
        sent = {"prompt": "An avocado chair", "n": 2, "response_format": "b64_json"}
        coded = (await client.post("/v1/images/generations", json=sent)).json()
        absent = await client.get("/_stand_in/images/nothing.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == base64.b64decode(coded["data"][1]["b64_json"])
    assert (picture.content[:4], absent.status_code) == (b"\x89PNG", 404)


# Azure OpenAI


async def test_deployments_take_the_place_of_models():
    async with serving(models="dep") as client:
        good = await client.post(f"{DEPLOYMENT}/embeddings", params=VERSION, json={"input": "a"})
        unknown = await client.post("/openai/deployments/other/embeddings", params=VERSION, json={"input": "a"})
        unversioned = await client.post(f"{DEPLOYMENT}/embeddings", json={"input": "a"})
    assert good.json()["model"] == "dep"
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "DeploymentNotFound")
    assert unversioned.status_code == 404


async def test_azures_429_has_its_own_words_and_headers():
    async with serving(rpm=6, retry_after="header,ms,message") as client:
        await client.post(f"{DEPLOYMENT}/embeddings", params=VERSION, json={"input": "a"})
        answer = await client.post(f"{DEPLOYMENT}/embeddings", params=VERSION, json={"input": "a"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (429, "429")
    assert (
        "Embeddings_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded call" in error["message"]
    )
    assert "Please retry after 10 seconds." in error["message"]
    assert (answer.headers["retry-after"], answer.headers["x-ratelimit-reset-requests"]) == ("10", "10")
    assert answer.headers["policy-id"] == "DeploymentRatelimit-Call"


@pytest.mark.parametrize(
    ("spelling", "outer", "inner"),
    [
        ("innererror", "innererror", "content_filter_result"),
        ("inner_error", "inner_error", "content_filter_results"),
        ("bare", None, None),
    ],
)
async def test_the_content_filter_speaks_in_either_spelling(spelling, outer, inner):
    poisoned = {"messages": [{"role": "user", "content": "[[content-filter]]"}]}
    async with serving(content_filter=spelling) as client:
        answer = await client.post(f"{DEPLOYMENT}/chat/completions", params=VERSION, json=poisoned)
        sent = {"prompt": "[[content-filter]]"}
        image = await client.post(f"{DEPLOYMENT}/images/generations", params=VERSION, json=sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (400, "content_filter", 400)
    assert image.json()["error"]["code"] == "content_policy_violation"
    if outer is None:
        assert "innererror" not in error
    else:
        assert error[outer][inner]["violence"] == {"filtered": True, "severity": "high"}


async def test_azures_chat_carries_what_its_filter_found():
    async with serving() as client:
        whole = (await client.post(f"{DEPLOYMENT}/chat/completions", params=VERSION, json={"messages": CHAT})).json()
        sent = {"messages": CHAT, "stream": True}
        chunks = events((await client.post(f"{DEPLOYMENT}/chat/completions", params=VERSION, json=sent)).text)
    assert whole["choices"][0]["content_filter_results"]["hate"]["filtered"] is False
    assert (chunks[0]["choices"], chunks[-1]) == ([], "[DONE]")
    assert chunks[0]["prompt_filter_results"][0]["prompt_index"] == 0


async def test_chat_on_your_data_answers_in_messages():
    source = {"type": "AzureCognitiveSearch", "parameters": {"endpoint": "e", "key": "k", "indexName": "i"}}
    sent = {"dataSources": [source], "messages": CHAT}
    path = f"{DEPLOYMENT}/extensions/chat/completions"
    headers = {"chatgpt_url": "u", "chatgpt_key": "k"}
    async with serving() as client:
        answer = (await client.post(path, params=PREVIEW, json=sent, headers=headers)).json()
        chunks = events((await client.post(path, params=PREVIEW, json={**sent, "stream": True})).text)
        wrong = await client.post(path, params=PREVIEW, json={"messages": CHAT})
        report = (await client.get("/_stand_in/stats")).json()
    tool, assistant = answer["choices"][0]["messages"]
    assert (tool["role"], tool["end_turn"], assistant["end_turn"]) == ("tool", False, True)
    assert json.loads(tool["content"])["citations"][0]["chunk_id"] == "0"
    last = chunks[-1]["choices"][0]["messages"][0]
    assert last == {"index": 2, "delta": {"content": "[DONE]"}, "end_turn": True}
    parts = [message for chunk in chunks for message in chunk["choices"][0]["messages"] if message["index"] == 1]
    assert "".join(part["delta"].get("content", "") for part in parts) == assistant["content"]
    assert wrong.status_code == 400
    assert report["events"] == {"chatgpt_url": 1, "chatgpt_key": 1}


async def submitted(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    sent = {"prompt": "An avocado chair", "n": 2, "size": "512x512", **more}
    return await client.post(SUBMIT, params=PREVIEW, json=sent)


async def test_an_image_operation_is_submitted_polled_and_deleted():
    async with serving() as client:
        first = await submitted(client)
        where = first.headers["operation-location"]
        early = await client.delete(where)
        polls = [await client.get(where) for _ in range(3)]
        late = [(await client.delete(where)).status_code, (await client.get(where)).status_code]
        picture = await client.get(polls[-1].json()["result"]["data"][0]["url"])
        report = (await client.get("/_stand_in/stats")).json()
    assert (first.status_code, first.headers["retry-after"], first.json()["status"]) == (202, "1", "notRunning")
    assert [poll.json()["status"] for poll in polls] == ["notRunning", "running", "succeeded"]
    assert ["retry-after" in poll.headers for poll in polls] == [True, True, False]
    assert (early.status_code, late, picture.status_code) == (400, [204, 404], 200)
    assert report["events"] == {"image_submits": 1, "image_polls": 4, "image_deletes": 1}


@pytest.mark.parametrize("state", ["canceled", "failed", "deleted"])
async def test_an_operation_may_end_in_any_state(state):
    async with serving(image_states=f"running,{state}") as client:
        where = (await submitted(client)).headers["operation-location"]
        documents = [(await client.get(where)).json() for _ in range(3)]
    assert [document["status"] for document in documents] == ["running", state, state]
    assert ("error" in documents[1]) == (state == "failed")


async def test_a_failure_may_come_as_a_400_with_the_operations_document():
    async with serving(image_states="failed", image_failed_status="400", image_poll_errors=2) as client:
        where = (await submitted(client)).headers["operation-location"]
        polls = [await client.get(where) for _ in range(3)]
    assert [poll.status_code for poll in polls] == [500, 500, 400]
    assert set(polls[2].json()) == {"created", "error"}


async def test_the_operations_address_may_be_relative_missing_or_foreign():
    async with serving() as client:
        found = {}
        for place in ("relative", "missing", "foreign"):
            await client.post("/_stand_in/config", json={"image_location": place})
            found[place] = (await submitted(client)).headers.get("operation-location")
    assert found["relative"].startswith("/openai/operations/images/")
    assert found["missing"] is None
    assert httpx.URL(found["foreign"]).port == 9


async def test_single_images_may_fail_and_unfinished_operations_have_a_limit():
    async with serving(image_states="succeeded", image_item_errors=1, image_operations=1) as client:
        first, second = await submitted(client, response_format="b64_json"), await submitted(client)
        data = (await client.get(first.headers["operation-location"])).json()["result"]["data"]
        third = await submitted(client)
        wrong = [(await submitted(client, **more)).status_code for more in ({"n": 6}, {"size": "1x1"})]
    assert (second.status_code, third.status_code, wrong) == (429, 202, [400, 400])
    assert [set(item) for item in data] == [{"error"}, {"b64_json"}]


async def test_access_tokens_are_given_let_in_and_end():
    form = {"grant_type": "client_credentials", "client_id": "id", "client_secret": "s", "scope": "x/.default"}
    path = "/tenant/oauth2/v2.0/token"
    async with serving(api_key="key", client_secret="s", token_lifetime_s=1) as client:
        given = (await client.post(path, data=form)).json()
        wrong = [await client.post(path, data=form | change) for change in ({"client_secret": "t"}, {"scope": ""})]
        asked: dict[str, Any] = {
            "params": VERSION,
            "json": {"input": "a"},
            "headers": {"Authorization": f"Bearer {given['access_token']}"},
        }
        fresh = await client.post(f"{DEPLOYMENT}/embeddings", **asked)
        status = 200
        while status == 200:
            status = (await client.post(f"{DEPLOYMENT}/embeddings", **asked)).status_code
    assert (given["token_type"], given["expires_in"]) == ("Bearer", 1)
    assert [(answer.status_code, answer.json()["error"]) for answer in wrong] == [
        (401, "invalid_client"),
        (400, "invalid_request"),
    ]
    assert (fresh.status_code, status) == (200, 401)


# Azure AI Model Inference


@pytest.mark.parametrize("base", ["", "/models"])
async def test_azure_ai_embeds_in_every_number_type(base):
    async with serving(dimensions=16) as client:
        found = {}
        for kind in ("float", "base64", "int8", "uint8", "binary", "ubinary"):
            sent = {"input": ["a"], "encoding_format": kind, "input_type": "query"}
            found[kind] = (await client.post(f"{base}/embeddings", json=sent)).json()["data"][0]["embedding"]
    row = vector("a", 16)
    assert np.array_equal(np.array(found["float"], np.float32), row)
    assert np.array_equal(np.frombuffer(base64.b64decode(found["base64"]), "<f4"), row)
    assert np.array_equal(np.unpackbits(np.array(found["ubinary"], np.uint8)), row > 0)
    assert [value + 128 for value in found["binary"]] == found["ubinary"]
    assert [value + 128 for value in found["int8"]] == found["uint8"]
    assert max(map(abs, found["int8"])) == 127


@pytest.mark.parametrize(("header", "status"), [(None, 422), ("error", 422), ("drop", 200), ("pass-through", 200)])
async def test_unknown_parameters_go_as_the_header_says(header, status):
    headers = {} if header is None else {"extra-parameters": header}
    async with serving() as client:
        sent = {"messages": CHAT, "safe_prompt": True}
        answer = await client.post("/chat/completions", json=sent, headers=headers)
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["detail"] == {"loc": ["body", "safe_prompt"], "input": True}


async def test_azure_ais_errors_are_flat():
    async with serving(unsupported="response_format", api_key="k") as client:
        client.headers["api-key"] = "k"
        sent = {"messages": CHAT, "response_format": {"type": "json_object"}}
        unsupported = await client.post("/chat/completions", json=sent)
        poisoned = {"messages": [{"role": "user", "content": "[[content-filter]]"}]}
        filtered = await client.post("/chat/completions", json=poisoned)
        unknown = await client.post("/chat/completions", json={"messages": CHAT}, headers={"api-key": "x"})
    assert unsupported.json() == {
        "status": 422,
        "code": "parameter_not_supported",
        "detail": {"loc": ["body", "response_format"], "input": "json_object"},
        "message": "One of the parameters contain invalid values.",
    }
    assert filtered.json() == {
        "status": 400,
        "code": "content_filter",
        "message": "The response was filtered",
        "param": "messages",
        "type": None,
    }
    assert (unknown.json()["status"], unknown.json()["error"]) == (401, "Unauthorized")


async def test_images_have_vectors_by_their_contents_and_the_model_is_told():
    def image(content: bytes, text: str) -> Mapping[str, str]:
        return {"image": f"data:image/png;base64,{base64.b64encode(content).decode()}", "text": text}

    async with serving(info_type="image-embeddings") as client:
        items = [image(b"one", "x"), image(b"one", "x"), image(b"two", "x")]
        data = (await client.post("/images/embeddings", json={"input": items})).json()["data"]
        wrong = await client.post("/images/embeddings", json={"input": [{"image": "http://a/b.png"}]})
        info = (await client.get("/models/info")).json()
    rows = [item["embedding"] for item in data]
    assert rows[0] == rows[1] != rows[2]
    assert wrong.status_code == 400
    assert info == {
        "model_name": "stand-in",
        "model_type": "image-embeddings",
        "model_provider_name": "Penstock",
    }


# Cohere and Bedrock


async def test_cohere_embeds_by_type_and_holds_to_its_rules():
    sent = {
        "model": "embed-v4.0",
        "texts": ["a", "b"],
        "input_type": "search_query",
        "embedding_types": ["float", "int8"],
    }
    async with serving(dimensions=8) as client:
        answer = (await client.post("/v2/embed", json=sent)).json()
        wrong = [
            await client.post("/v2/embed", json=sent | change)
            for change in ({"texts": ["a"] * 97}, {"input_type": "x"}, {"embedding_types": []}, {"truncate": "x"})
        ]
        filtered = await client.post("/v2/embed", json=sent | {"texts": ["[[content-filter]]"]})
        await client.post("/_stand_in/config", json={"refuse": "insufficient_quota"})
        unpaid = await client.post("/v2/embed", json=sent)
    assert np.array_equal(np.array(answer["embeddings"]["float"][1], np.float32), vector("b", 8))
    assert answer["meta"]["billed_units"] == {"input_tokens": 2}
    assert [each.status_code for each in wrong] == [400] * 4
    assert filtered.status_code == 498
    assert (unpaid.status_code, "/ month" in unpaid.json()["message"]) == (429, True)


def bedrock(url: httpx.URL, secret: str = "SECRET") -> Any:
    session = botocore.session.Session()
    session.set_credentials("AKID", secret)
    once = Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=10, proxies={})
    return session.create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=str(url), config=once)


TALK = [{"role": "user", "content": [{"text": "What is a penstock?"}]}]


async def test_botocore_embeds_and_converses_with_the_stand_in():
    async with serving(aws_key="AKID:SECRET", answer_tokens=5) as client:
        found = await asyncio.to_thread(_use_bedrock, bedrock(client.base_url))
    assert np.array_equal(np.array(found["titan"]["embedding"], np.float32), vector("a", 256))
    assert found["titan"]["inputTextTokenCount"] == 1
    assert np.array_equal(np.array(found["cohere"]["embeddings"][1], np.float32), vector("b", 256))
    text = found["whole"]["output"]["message"]["content"][0]["text"]
    assert "".join(event["contentBlockDelta"]["delta"]["text"] for event in found["deltas"]) == text
    assert found["whole"]["stopReason"] == "end_turn"
    assert found["last"]["metadata"]["usage"] == found["whole"]["usage"]
    assert found["tool"]["output"]["message"]["content"][0]["toolUse"]["input"] == {"city": "water"}


def _use_bedrock(client: Any) -> dict[str, Any]:
    def invoke(model: str, sent: Mapping[str, Any]) -> Any:
        return json.loads(client.invoke_model(modelId=model, body=json.dumps(sent))["body"].read())

    tools = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": TOOL["parameters"]}}}]}
    stream = list(client.converse_stream(modelId="amazon.nova-lite-v1:0", messages=TALK)["stream"])
    found = {
        "titan": invoke("amazon.titan-embed-text-v2:0", {"inputText": "a", "dimensions": 256}),
        "cohere": invoke("cohere.embed-english-v3", {"texts": ["a", "b"], "input_type": "search_query"}),
        "whole": client.converse(modelId="arn:aws:bedrock:us-east-1:1:inference-profile/x", messages=TALK),
        "tool": client.converse(modelId="amazon.nova-lite-v1:0", messages=TALK, toolConfig=tools),
        "deltas": [event for event in stream if "contentBlockDelta" in event],
        "last": stream[-1],
    }
    client.close()
    return found


@pytest.mark.parametrize(
    ("given", "secret", "text", "error", "status"),
    [
        ({}, "WRONG", "hi", "InvalidSignatureException", 403),
        ({"aws_key": "OTHER:SECRET"}, "SECRET", "hi", "UnrecognizedClientException", 403),
        ({"max_concurrent": 1, "cool_down_s": 60}, "SECRET", "hi", "ThrottlingException", 429),
        ({"refuse": "insufficient_quota"}, "SECRET", "hi", "ServiceQuotaExceededException", 400),
        ({"refuse": "slow_down"}, "SECRET", "hi", "ModelNotReadyException", 429),
        ({"refuse": "403"}, "SECRET", "hi", "AccessDeniedException", 403),
        ({"models": "known"}, "SECRET", "hi", "ResourceNotFoundException", 404),
        ({}, "SECRET", "[[too-long]]", "ValidationException", 400),
        ({}, "SECRET", "[[408]]", "ModelTimeoutException", 408),
        ({}, "SECRET", "[[424]]", "ModelErrorException", 424),
        ({}, "SECRET", "[[500]]", "InternalServerException", 500),
        ({}, "SECRET", "[[503]]", "ServiceUnavailableException", 503),
    ],
)
async def test_bedrocks_errors_have_their_names(given, secret, text, error, status):
    def ask(client: Any) -> ClientError:
        with pytest.raises(ClientError) as caught:
            client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": text}]}])
        client.close()
        return caught.value

    async with serving(**{"aws_key": "AKID:SECRET", **given}) as client:
        found = await asyncio.to_thread(ask, bedrock(client.base_url, secret))
    assert found.response["Error"]["Code"] == error
    assert found.response["ResponseMetadata"]["HTTPStatusCode"] == status


async def test_an_error_in_mid_stream_is_an_exception_event():
    def ask(client: Any) -> None:
        talk = [{"role": "user", "content": [{"text": "[[error-stream]]"}]}]
        stream = client.converse_stream(modelId="m", messages=talk)["stream"]
        with closing(stream), pytest.raises(EventStreamError, match="modelStreamErrorException"):
            list(stream)
        client.close()

    async with serving() as client:
        await asyncio.to_thread(ask, bedrock(client.base_url))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("amazon.titan-embed-text-v2%3A0/invoke", {"inputText": "a", "dimensions": 100}),
        ("amazon.titan-embed-text-v2%3A0/invoke", {"inputText": "a", "texts": []}),
        ("amazon.titan-embed-text-v2%3A0/invoke", {"inputText": ["a"]}),
        ("cohere.embed-english-v3/invoke", {"texts": ["a"]}),
        ("m/converse", {"messages": []}),
        ("m/converse", {"messages": [{"role": "assistant", "content": [{"text": "a"}]}]}),
        ("m/converse", {"messages": [*TALK, *TALK]}),
        ("m/converse", {"messages": [{"role": "user", "content": "a"}]}),
        ("m/converse", {"messages": TALK, "inferenceConfig": {"maxTokens": "x"}}),
    ],
)
async def test_a_wrong_request_is_a_validation_exception(path, sent):
    async with serving() as client:
        answer = await client.post(f"/model/{path}", json=sent)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException:")
