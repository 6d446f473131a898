"""The word strategy: Elasticsearch's figures, its edges, and the slow chunker."""

# ruff: noqa: RUF001 - look-alike characters are what is tested

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.errors import InputInvalid
from penstock.tasks.chunking import ChunkingInvalid, count_words, word_chunks
from support import slow_chunkers
from support.texts import any_text


def parts(text: str, size: int, overlap: int) -> list[str]:
    return [text[start:end] for start, end in word_chunks(text, size, overlap)]


def numbers(count: int) -> str:
    return "".join(f"{n} " for n in range(count))


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("Comma, separated", 1, ["Comma", ", separated"]),
        ("Mme. Thénardier", 1, ["Mme", ". Thénardier"]),
        ("Won't you chunk", 1, ["Won't", " you", " chunk"]),
        ("Won't you chunk", 10, ["Won't you chunk"]),
        ("one two three.  ", 3, ["one two three"]),
        ("one two three.  ", 2, ["one two", " three.  "]),
        ("one two.  ", 3, ["one two.  "]),
        ("...", 1, ["..."]),
        ("😀 one 😀 two 😀", 1, ["😀 one", " 😀 two"]),
        ("𝒳 𝒴 𠀀", 1, ["𝒳", " 𝒴", " 𠀀"]),
        ("שלום עולם", 1, ["שלום", " עולם"]),
        ("日本語のテキスト", 1, ["日本語", "の", "テキスト"]),
        ("ภาษาไทย", 1, ["ภาษา", "ไทย"]),
    ],
)
def test_a_chunk_ends_with_a_word_and_what_follows_belongs_to_the_next(
    text: str, size: int, expected: list[str]
) -> None:
    assert parts(text, size, 0) == expected


@pytest.mark.parametrize("text", ["", " ", "  \n "])
def test_an_empty_or_blank_text_is_one_chunk(text: str) -> None:
    assert word_chunks(text, 10, 5) == [(0, len(text))]


@pytest.mark.parametrize(("size", "chunks"), [(10, 14), (20, 7), (100, 2), (300, 1)])
def test_a_text_of_133_words_gives_elasticsearchs_number_of_chunks(size: int, chunks: int) -> None:
    assert len(word_chunks(numbers(133).strip() + ".", size, 0)) == chunks


@pytest.mark.parametrize("words", [10, 22, 50, 73, 100])
@pytest.mark.parametrize(("size", "overlap"), [(10, 4), (10, 2), (20, 4), (20, 10)])
def test_with_an_overlap_each_further_chunk_takes_so_many_fewer_words(words: int, size: int, overlap: int) -> None:
    step = size - overlap
    further = -(-(words - size) // step) if words > size else 0
    assert len(word_chunks(numbers(words), size, overlap)) == 1 + further


@pytest.mark.parametrize(("words", "chunks"), [(7, 1), (8, 1), (9, 1), (10, 1), (11, 2)])
def test_a_remainder_that_is_all_overlap_is_no_chunk(words: int, chunks: int) -> None:
    assert len(word_chunks(numbers(words), 10, 3)) == chunks


@pytest.mark.parametrize("words", range(4, 60, 7))
@pytest.mark.parametrize(("size", "overlap"), [(20, 10), (10, 4), (15, 3), (2, 1), (1, 0)])
def test_windows_hold_their_words_and_the_white_space_before(words: int, size: int, overlap: int) -> None:
    expected, start = [], 0
    while True:
        end = min(start + size, words)
        expected.append(" " * bool(start) + " ".join(str(n) for n in range(start, end)))
        if end == words:
            break
        start += size - overlap
    assert parts(numbers(words).rstrip(), size, overlap) == expected


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (10, 6, r"Invalid chunking parameters, overlap \[6\] must be < chunk size / 2 \[10 / 2 = 5\]"),
        (4, 10, r"Invalid chunking parameters, overlap \[10\] must be < chunk size / 2 \[4 / 2 = 2\]"),
        (3, 2, r"overlap \[2\] must be < chunk size / 2 \[3 / 2 = 1\]"),
        (10, -1, r"Invalid chunking parameters, overlap \[-1\] must be >= 0"),
        (0, 0, r"max_chunk_size \[0\] must be >= 1"),
    ],
)
def test_an_overlap_over_half_of_the_size_is_refused_in_elasticsearchs_words(
    size: int, overlap: int, message: str
) -> None:
    with pytest.raises(ChunkingInvalid, match=message) as caught:
        word_chunks("not evaluated", size, overlap)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, InputInvalid)


def test_a_text_that_is_no_string_is_refused() -> None:
    with pytest.raises(InputInvalid, match="text must be a string, not bytes"):
        word_chunks(b"bytes", 10, 0)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(any_text, st.integers(1, 12), st.data())
def test_it_cuts_where_the_slow_chunker_cuts(text: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    assert word_chunks(text, size, overlap) == slow_chunkers.word_chunks(text, size, overlap)


@settings(max_examples=200, deadline=None)
@given(any_text, st.integers(1, 12), st.data())
def test_chunks_lose_no_word_and_no_place_between_words(text: str, size: int, data: st.DataObject) -> None:
    chunks = word_chunks(text, size, data.draw(st.integers(0, size // 2)))
    assert chunks[0][0] == 0
    for (_, end), (start, _) in pairwise(chunks):
        assert start <= end
    assert count_words(text[chunks[-1][1] :]) == 0


def test_windows_of_a_long_text_meet_without_a_seam() -> None:
    text = "".join(f"word{n}, " if n % 7 else f"word{n}.\n" for n in range(60_000))
    chunks = word_chunks(text, 250, 100)
    assert len(chunks) == 1 + -(-(60_000 - 250) // 150)
    assert [count_words(text[start:end]) for start, end in chunks[:-1]] == [250] * (len(chunks) - 1)
