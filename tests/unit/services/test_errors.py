"""Errors in every envelope that servers use; messages without keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tasks.services.wire.errors import LONGEST_MESSAGE, ErrorBody, clean, read_error, snake

LOC = {"loc": ["body", "input", 3], "msg": "Input should be a valid string", "type": "string_type"}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}},
            ErrorBody("m", "c", "t", "p"),
        ),
        ({"error": {"message": "m", "type": None, "param": None, "code": None}}, ErrorBody("m")),
        ({"error": {"message": "m", "code": "429"}}, ErrorBody("m", status=429)),
        ({"error": {"message": "m", "code": 400, "type": "t"}}, ErrorBody("m", type="t", status=400)),
        ({"object": "error", "message": "m", "type": "t", "code": 400}, ErrorBody("m", type="t", status=400)),
        ({"status": 404, "error": "NotFound", "message": "m"}, ErrorBody("m", "NotFound", status=404)),
        ({"status": 401, "error": "Access denied here", "message": "m"}, ErrorBody("m", status=401)),
        ({"statusCode": 401, "message": "m"}, ErrorBody("m")),
        ({"error": "model 'x' not found"}, ErrorBody("model 'x' not found")),
        ({"error": "`inputs` too long", "error_type": "Validation"}, ErrorBody("`inputs` too long", type="Validation")),
        ({"error": "invalid_client", "error_description": "AADSTS70"}, ErrorBody("AADSTS70", "invalid_client")),
        ({"detail": "Not Found"}, ErrorBody("Not Found")),
        (
            {"detail": [LOC]},
            ErrorBody("Input should be a valid string", param="input.3"),
        ),
        (
            {"status": 422, "code": "c", "detail": {"loc": ["body", "response_format"], "value": "v"}, "message": "m"},
            ErrorBody("m", "c", param="response_format", value="v", status=422),
        ),
        ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], ErrorBody("m", status=400)),
        ({"message": "m"}, ErrorBody("m")),
        ({"Message": "m"}, ErrorBody("m")),
        ("a JSON string", ErrorBody("a JSON string")),
        (17, ErrorBody()),
        ([], ErrorBody()),
        ({}, ErrorBody()),
        ({"error": None}, ErrorBody()),
        ({"error": []}, ErrorBody()),
    ],
)  # fmt: skip
def test_every_envelope_is_read(body: Any, error: ErrorBody) -> None:
    assert read_error(json.dumps(body).encode()) == error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"upstream connect error", "upstream connect error"),
        (b"<html><head><title>502 Bad Gateway</title></head></html>", "an HTML page instead of JSON: 502 Bad Gateway"),
        (b"<h1>Not\nhere</h1>", "an HTML page instead of JSON: Not\nhere"),
        (b"<", "an HTML page instead of JSON: no title"),
        (b"", ""),
        (b"\xff\xfe", "��"),
        (b'{"error": {"mess', '{"error": {"mess'),
    ],
)
def test_what_is_no_json_is_its_own_message(body: bytes, message: str) -> None:
    assert read_error(body).message == message


@pytest.mark.parametrize("inner", ["innererror", "inner_error"])
@pytest.mark.parametrize("results", ["content_filter_result", "content_filter_results"])
def test_filter_results_are_read_in_both_spellings_of_both_names(inner: str, results: str) -> None:
    found = {
        "hate": {"filtered": True, "severity": "high"},
        "jailbreak": {"filtered": False},
        "sexual": {"filtered": True},
    }
    body = {"error": {"code": "content_filter", inner: {"code": "ResponsibleAIPolicyViolation", results: found}}}
    error = read_error(json.dumps(body).encode())
    assert (error.inner_code, error.filtered) == ("ResponsibleAIPolicyViolation", ("hate", "sexual"))


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-600, 600), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "detail", "loc", "innererror", "status",
                             "content_filter_result", "input"]), inner, max_size=5),
    ),
    max_leaves=12,
))  # fmt: skip
def test_no_shape_of_an_error_makes_the_reading_fail(document: Any) -> None:
    error = read_error(json.dumps(document).encode())
    assert isinstance(error.message, str)


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("DeploymentNotFound", "deployment_not_found"),
        ("contentFilter", "content_filter"),
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("Too Many Requests", "too_many_requests"),
        ("", ""),
        ("x" * 900, "x" * 64),
    ],
)
def test_codes_are_spelled_in_snake_case(code: str, ours: str) -> None:
    assert snake(code) == ours


@pytest.mark.parametrize(
    ("message", "secret"),
    [
        ("Incorrect API key provided: sk-abc*******wxyz. You can find your key", "wxyz"),
        ("Incorrect API key provided: hunter2", "hunter2"),
        ("bad key sk-proj-AbCdEf0123456789_x-y", "AbCdEf0123456789"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        ("bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "c2ln"),
        ("token=eyJ0eXAiOiJKV1Qi.eyJhdWQi.sig rejected", "eyJ0"),
        ("The key AKIAIOSFODNN7EXAMPLE is unknown", "IOSFODNN7EXAMPLE"),
        ("subscription key: 0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("key 0123456789abcdef0123456789abcdef is disabled", "0123456789abcdef"),
        ("https://x.blob.core.windows.net/i.png?sig=a%2Fb3%3D&se=1", "a%2Fb3"),
        ("you sent my-own-secret here", "my-own-secret"),
    ],
)
def test_no_key_is_left_in_a_message(message: str, secret: str) -> None:
    assert secret in message
    assert secret not in clean(message, ["my-own-secret"])


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens, however you requested 10000 tokens",
        "The API deployment for this resource does not exist.",
        "Rate limit reached for text-embedding-3-small in organization org-x on tokens per min (TPM): Limit 200000",
        "operation 4b755937-3173-4b49-bf3f-da6702a3971a is not there",
        "see https://learn.microsoft.com/azure/ai-services/openai/how-to/quota?tabs=rest",
    ],
)
def test_words_ids_and_addresses_are_left_alone(message: str) -> None:
    assert clean(message) == message


def test_a_message_is_one_short_line() -> None:
    found = clean("first line\n\n  second " + "long " * 1000)
    assert found.startswith("first line second long")
    assert len(found) == LONGEST_MESSAGE
    assert "\n" not in found
