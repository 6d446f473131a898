"""What of a value may be shown."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.endpoints.masking import Mask, MaskedMap, holds_mask, masked, secret_name, secret_text


@pytest.mark.parametrize(
    "name", ["api_key", "Api-Key", "Authorization", "client_secret", "password", "entra_id", "token"]
)
def test_names_of_secrets(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize("name", ["model_id", "max_input_tokens", "tokens_per_minute", "user", "url", "keywords"])
def test_names_of_other_things(name: str) -> None:
    assert not secret_name(name)


@pytest.mark.parametrize(
    "text", ["sk-abc", "Bearer x", "0123456789abcdef0123456789abcdef", "eyJhbGciOiJIUzI1NiJ9.e30.x"]
)
def test_texts_that_look_like_keys(text: str) -> None:
    assert secret_text(text)


@pytest.mark.parametrize("text", ["text-embedding-3-small", "a sentence", "https://api.openai.com/v1", "2024-02-01"])
def test_texts_that_do_not(text: str) -> None:
    assert not secret_text(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ([1, "a", None], "[1, a, null]"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{a={b={c={...}}}}"),
        ("x" * 200, "x" * 100 + "..."),
        ("a\nb\u202e", "a\\u000ab\\u202e"),
        ("the hush word", "***"),
        ({"hush": 1, "api_key": 5}, "{***=1, api_key=***}"),
        (10**400, "a number of more than 64 bits"),
    ],
)
def test_values_as_messages_show_them(value: Any, shown: str) -> None:
    assert Mask(["hush"]).show(value) == shown


def test_scrubbing_takes_long_secrets_out_of_others_messages() -> None:
    assert Mask(["longenough", "no"]).scrub("no longenough") == "no ***"


TASK_SETTINGS = {
    "user": "me",
    "headers": {"X-Api-Key": "hush", "X-Team": "search", "X-Other": "Bearer hush", "X-Id": "hush0123456789abc"},
    "parameters": {"max_tokens": 5, "dataSources": [{"parameters": {"key": "hush", "index": "docs0123456789abc"}}]},
}


def test_objects_show_only_what_is_plain() -> None:
    shown = masked(TASK_SETTINGS)
    assert shown == {
        "user": "me",
        "headers": {"X-Api-Key": "***", "X-Team": "search", "X-Other": "***", "X-Id": "***"},
        "parameters": {"max_tokens": 5, "dataSources": [{"parameters": {"key": "***", "index": "docs0123456789abc"}}]},
    }
    assert "hush" not in repr(MaskedMap(TASK_SETTINGS))
    assert MaskedMap(TASK_SETTINGS) == TASK_SETTINGS


def test_what_was_masked_is_known_again() -> None:
    assert holds_mask(masked(TASK_SETTINGS))
    assert not holds_mask(TASK_SETTINGS)
