"""Documents that people wrote: three formats, errors with line and column, nothing quoted that may be a key."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.endpoints.documents import LARGEST, parse_document
from penstock.config.errors import ConfigurationError

BODY = {"service": "openai", "service_settings": {"dimensions": 3}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.json", '{"service": "openai", "service_settings": {"dimensions": 3}}'),
        ("f.YAML", "service: openai\nservice_settings: {dimensions: 3}\n"),
        ("f.yml", "service: openai\nservice_settings:\n  dimensions: 3\n"),
        ("f.toml", 'service = "openai"\n[service_settings]\ndimensions = 3\n'),
        ("stdin", ' {"service": "openai", "service_settings": {"dimensions": 3}}'),
        ("stdin", "service: openai\nservice_settings: {dimensions: 3}\n"),
        ("stdin", 'service = "openai"\nservice_settings = {dimensions = 3}\n'),
        ("f.json", '\ufeff{"service": "openai", "service_settings": {"dimensions": 3}}'),
    ],
)
def test_the_three_formats_say_the_same(name: str, text: str) -> None:
    assert parse_document(text.encode(), name) == BODY


def test_an_api_version_in_yaml_is_a_string_and_no_date() -> None:
    assert parse_document(b"api_version: 2024-02-01", "f.yaml") == {"api_version": "2024-02-01"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("f.json", b'{"a": 1,\n "b" 2}', r"^f.json: line 2, column 6: this is not valid JSON: Expecting ':' delimiter"),
        (
            "f.yaml",
            b"a: 1\nb: [1, 2",
            r"^f.yaml: line 2, column 9: this is not valid YAML: expected ',' or ']', but got '<stream end>'",
        ),
        ("f.yaml", b"a: !!python/object:os.system {}", r"^f.yaml: line 1, column 4: this is not valid YAML"),
        ("f.toml", b"a = 1\nb = ", r"^f.toml: line 2, at the end: this is not valid TOML: Invalid value"),
        ("f.toml", b"a = sk-hush\n", r"^f.toml: line 1, column 5: this is not valid TOML: Invalid value"),
        ("f.yaml", b"a: *sk-hush", r"column 4: this is not valid YAML: found undefined alias '...'"),
        ("f.toml", b"hush = 1\nhush = 2\n", "this is not valid TOML: Cannot overwrite a value"),
        ("f.json", b"", "it is empty"),
        ("f.json", b"  \n", "it is empty"),
        ("f.json", b"\xff\xfe", "it is not UTF-8 text"),
        ("f.json", b"[" * 100_000, "nested too deeply"),
        ("f.json", b" " * (LARGEST + 1), "are allowed"),
        ("f.json", b"1" * 5000, "this is not valid JSON"),
        ("f.yaml", b"a: 1\n\ta: 2", "this is not valid YAML"),
        ("f.yaml", b"{[a]: 1}", "this is not valid YAML"),
        ("f.yaml", b"a: \x07", "this is not valid YAML"),
    ],
)
def test_a_broken_document_says_where_and_why(name: str, data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_document(data, name)
    assert "hush" not in str(caught.value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_no_bytes_give_anything_but_data_or_a_clear_error(data: bytes) -> None:
    for name in ("f.json", "f.yaml", "f.toml", "stdin"):
        with contextlib.suppress(ConfigurationError):
            parse_document(data, name)
