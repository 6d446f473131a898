"""chunking_settings: Elasticsearch's rules and messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.endpoints.chunking import ALLOWED, check_chunking, validate_chunking
from penstock.config.errors import EndpointInvalid


@pytest.mark.parametrize(
    ("given_settings", "kept"),
    [
        (None, {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}),
        ({}, {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}),
        (
            {"strategy": "sentence", "max_chunk_size": 20},
            {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 1},
        ),
        (
            {"strategy": " Sentence ", "max_chunk_size": 9000, "sentence_overlap": 0},
            {"strategy": "sentence", "max_chunk_size": 9000, "sentence_overlap": 0},
        ),
        (
            {"strategy": "WORD", "max_chunk_size": 10, "overlap": 5},
            {"strategy": "word", "max_chunk_size": 10, "overlap": 5},
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10},
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": "plaintext"},
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": " Markdown"},
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": "markdown"},
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separators": ["\n\n", "(?<=[.])"]},
            {"strategy": "recursive", "max_chunk_size": 10, "separators": ["\n\n", "(?<=[.])"]},
        ),
        ({"strategy": "none"}, {"strategy": "none"}),
        ({"strategy": "none", "overlap": None}, {"strategy": "none"}),
    ],
)
def test_good_settings_come_back_complete(given_settings: Any, kept: dict[str, Any]) -> None:
    assert validate_chunking(given_settings) == kept


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ({"max_chunk_size": 20}, ["Can't generate Chunker without ChunkingStrategy provided"]),
        (
            {"strategy": "page"},
            [
                "[chunking_settings] Invalid value [page] received. "
                "[strategy] must be one of [none, recursive, sentence, word]"
            ],
        ),
        (
            {"strategy": 5},
            ["field [strategy] is not of the expected type. The value [5] cannot be converted to a [String]"],
        ),
        (
            {"strategy": "word"},
            [
                "[chunking_settings] does not contain the required setting [max_chunk_size]",
                "[chunking_settings] does not contain the required setting [overlap]",
            ],
        ),
        (
            {"strategy": "word", "max_chunk_size": 9, "overlap": 0},
            [
                "[chunking_settings] Invalid value [9.0]. [max_chunk_size] must be greater than or equal to [10.0]",
                "[chunking_settings] Invalid value [0]. [overlap] must be a positive integer",
            ],
        ),
        (
            {"strategy": "word", "max_chunk_size": 20, "overlap": 11},
            ["[chunking_settings] Invalid value [11.0]. [overlap] must be less than or equal to [10.0]"],
        ),
        (
            {"strategy": "word", "max_chunk_size": 21, "overlap": 11},
            ["[chunking_settings] Invalid value [11.0]. [overlap] must be less than or equal to [10.0]"],
        ),
        (
            {"strategy": "word", "max_chunk_size": "ten", "overlap": True},
            [
                "field [max_chunk_size] is not of the expected type. "
                "The value [ten] cannot be converted to a [Integer]",
                "field [overlap] is not of the expected type. The value [true] cannot be converted to a [Integer]",
            ],
        ),
        (
            {"strategy": "word", "max_chunk_size": 10, "overlap": 2, "sentence_overlap": 1, "x": 2},
            ["Word based chunking settings can not have the following settings: [sentence_overlap, x]"],
        ),
        (
            {"strategy": "sentence", "max_chunk_size": 19, "sentence_overlap": 2, "overlap": 3},
            [
                "Sentence based chunking settings can not have the following settings: [overlap]",
                "[chunking_settings] Invalid value [19.0]. [max_chunk_size] must be greater than or equal to [20.0]",
                "sentence_overlap[2] must be either 0 or 1",
            ],
        ),
        ({"strategy": "sentence"}, ["[chunking_settings] does not contain the required setting [max_chunk_size]"]),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separators": ["a"], "separator_group": "plaintext"},
            ["Recursive chunking settings can not have both separators and separator_set"],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separators": []},
            ["Recursive chunking settings can not have an empty list of separators"],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 10, "separator_group": "html"},
            [
                "[chunking_settings] Invalid value [html] received. "
                "[separator_group] must be one of [markdown, plaintext]"
            ],
        ),
        (
            {"strategy": "recursive", "max_chunk_size": 5, "overlap": 1},
            [
                "Recursive chunking settings can not have the following settings: [overlap]",
                "[chunking_settings] Invalid value [5.0]. [max_chunk_size] must be greater than or equal to [10.0]",
            ],
        ),
        (
            {"strategy": "none", "max_chunk_size": 5},
            ["When chunking is disabled (none), settings can not have the following: [max_chunk_size]"],
        ),
        (
            "sentence",
            [
                "field [chunking_settings] is not of the expected type. "
                "The value [sentence] cannot be converted to a [Map]"
            ],
        ),
    ],
)
def test_all_faults_are_told_in_elasticsearchs_words(settings: Any, faults: list[str]) -> None:
    with pytest.raises(EndpointInvalid) as caught:
        validate_chunking(settings)
    assert list(caught.value.faults) == faults


def test_a_separator_that_is_no_regular_expression_is_a_fault_at_once() -> None:
    with pytest.raises(EndpointInvalid, match=r"Invalid value \[\(\]. \[separators\] must be regular expressions"):
        validate_chunking({"strategy": "recursive", "max_chunk_size": 10, "separators": ["("]})


_VALUES = st.none() | st.booleans() | st.integers(-30, 400) | st.floats() | st.text(max_size=8) | st.lists(st.text())
_KEYS = sorted({key for keys in ALLOWED.values() for key in keys})


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES | st.sampled_from(sorted(ALLOWED))))
def test_whatever_comes_it_is_faults_or_settings_that_are_valid_again(settings: dict[str, Any]) -> None:
    kept, faults = check_chunking(settings)
    if not faults:
        assert validate_chunking(kept) == kept
        assert set(kept) <= set(ALLOWED[kept["strategy"]])
