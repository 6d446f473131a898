"""From settings to strategies."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.endpoints.chunking import GROUPS, validate_chunking
from penstock.config.errors import InputInvalid
from penstock.tasks.chunking import (
    SEPARATOR_GROUPS,
    ChunkingInvalid,
    chunk_text,
    recursive_chunks,
    sentence_chunks,
    word_chunks,
)

TEXT = "One two three. Four five six.\n\n" * 60


@pytest.mark.parametrize("settings", [None, {}, {"strategy": "sentence", "max_chunk_size": 250}])
def test_the_default_is_sentences_of_250_words_with_one_of_overlap(settings: dict[str, Any] | None) -> None:
    assert chunk_text(TEXT, settings) == sentence_chunks(TEXT, 250, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0}, sentence_chunks(TEXT, 20, 0)),
        ({"strategy": " Word ", "max_chunk_size": 10, "overlap": 3}, word_chunks(TEXT, 10, 3)),
        ({"strategy": "recursive", "max_chunk_size": 10}, recursive_chunks(TEXT, 10, SEPARATOR_GROUPS["plaintext"])),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": "markdown"},
            recursive_chunks(TEXT, 10, SEPARATOR_GROUPS["markdown"]),
        ),
        ({"strategy": "recursive", "max_chunk_size": 10, "separators": ["T"]}, recursive_chunks(TEXT, 10, ["T"])),
        ({"strategy": "none"}, [(0, len(TEXT))]),
    ],
)
def test_settings_name_the_strategy(settings: dict[str, Any], expected: list[tuple[int, int]]) -> None:
    assert chunk_text(TEXT, settings) == expected
    assert chunk_text(TEXT, validate_chunking(settings)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_chunk_size": 10}, r"does not contain the required setting \[strategy\]"),
        ({"strategy": "word", "overlap": 1}, r"does not contain the required setting \[max_chunk_size\]"),
        ({"strategy": "word", "max_chunk_size": 10}, r"does not contain the required setting \[overlap\]"),
        ({"strategy": "lines"}, r"\[strategy\] must be one of \[sentence, word, recursive, none\]"),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": "html"},
            r"Invalid value \[html\] received. \[separator_group\] must be one of \[markdown, plaintext\]",
        ),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ChunkingInvalid, match=message):
        chunk_text(TEXT, settings)


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a"]])
def test_only_a_string_can_be_chunked(text: Any) -> None:
    with pytest.raises(InputInvalid, match="text must be a string"):
        chunk_text(text, {"strategy": "none"})


def test_an_empty_text_is_one_empty_chunk_in_every_strategy() -> None:
    for strategy in ("sentence", "word", "recursive", "none"):
        assert chunk_text("", {"strategy": strategy, "max_chunk_size": 20, "overlap": 5}) == [(0, 0)]


def test_the_groups_that_validation_knows_are_those_there_are() -> None:
    assert sorted(SEPARATOR_GROUPS) == sorted(GROUPS)
