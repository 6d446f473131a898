"""The sentence strategy: Elasticsearch's figures and quirks, and the slow chunker."""

# ruff: noqa: RUF001 - look-alike characters are what is tested

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.tasks.chunking import ChunkingInvalid, count_words, sentence_chunks
from penstock.tasks.chunking.boundaries.streams import word_segments
from support import slow_chunkers
from support.texts import any_text, english


def sentence(words: int, name: str = "Start") -> str:
    return f"{name} " + "".join(f"{n} " for n in range(1, words - 1)) + f"{words - 1}. "


def text_of(*sizes: int) -> str:
    return "".join(sentence(size, f"Start{n}") for n, size in enumerate(sizes))


# Elasticsearch's own test text: 135 words by white space, four sentences of so many words by ICU.
FIGURES = text_of(16, 42, 60, 15)


def parts(text: str, size: int, overlap: int) -> list[str]:
    return [text[start:end] for start, end in sentence_chunks(text, size, overlap)]


@pytest.mark.parametrize(("size", "chunks"), [(10, 21), (30, 7), (50, 4), (100, 2), (200, 1), (500, 1)])
def test_elasticsearchs_figures_without_overlap(size: int, chunks: int) -> None:
    assert len(sentence_chunks(FIGURES, size, 0)) == chunks


@pytest.mark.parametrize(("size", "chunks"), [(70, 3), (80, 3), (100, 2), (120, 2), (150, 1), (200, 1), (500, 1)])
def test_elasticsearchs_figures_with_overlap(size: int, chunks: int) -> None:
    assert len(sentence_chunks(FIGURES, size, 1)) == chunks


def test_whole_sentences_are_kept_where_they_fit() -> None:
    for chunk in parts(FIGURES, 100, 0):
        assert chunk.startswith("Start")
        assert chunk.rstrip().endswith(".")


@pytest.mark.parametrize("text", ["", "   ", "   b", "b", ". ", " , ", " ,", "\n", "a" * 32_000, "👍🏽", "\ud800"])
@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("size", [1, 100])
def test_a_text_of_one_word_or_none_is_one_chunk(text: str, overlap: int, size: int) -> None:
    assert sentence_chunks(text, size, overlap) == [(0, len(text))]


def test_a_chunk_begins_with_the_whole_sentence_before_where_both_fit() -> None:
    one, two, three, four = (sentence(20, name) for name in ("One", "Two", "Three", "Four"))
    assert parts(one + two + three + four, 40, 1) == [one + two, two + three, three + four]


def test_a_sentence_too_long_to_repeat_gives_its_last_twenty_words() -> None:
    text = sentence(60, "One") + sentence(60, "Two")
    first, second = parts(text, 100, 1)
    assert first == sentence(60, "One")
    assert second == " ".join(str(n) for n in range(40, 60)) + ". " + sentence(60, "Two")


def test_a_small_chunk_gives_half_of_its_size_as_overlap() -> None:
    # 6 + 6 words do not fit, so the last 10 // 2 come along; 5 + 6 do not either: split, sharing (10 - 1) // 2.
    assert parts(sentence(6, "One") + sentence(6, "Two"), 10, 1) == [
        sentence(6, "One"),
        "1 2 3 4 5. Two 1 2 3 4",
        " 1 2 3 4 5. ",
    ]


def test_a_short_sentence_before_comes_whole_with_the_white_space_before_it() -> None:
    # "Two" has 3 words, at most min(20 // 2, 20): none is skipped, and skipping none stands one boundary before it.
    text = sentence(18, "One") + sentence(3, "Two") + sentence(18, "Three")
    first, second, third, fourth = parts(text, 20, 1)
    assert first == sentence(18, "One")
    assert second == "8 9 10 11 12 13 14 15 16 17. Two 1 2. "
    assert third == " Two 1 2. Three " + " ".join(str(n) for n in range(1, 17))
    assert fourth.endswith("16 17. ")


def test_a_sentence_over_the_size_is_split_between_words_with_overlap_even_when_none_is_asked() -> None:
    chunks = parts(sentence(25, "One"), 10, 0)
    assert chunks == [
        "One 1 2 3 4 5 6 7 8 9",
        " 6 7 8 9 10 11 12 13 14 15",
        " 12 13 14 15 16 17 18 19 20 21",
        " 18 19 20 21 22 23 24. ",
    ]


def test_the_last_piece_of_a_split_sentence_takes_the_sentences_that_follow() -> None:
    assert parts(sentence(12, "One") + "Short one. " + "More of these that fit. ", 10, 0) == [
        "One 1 2 3 4 5 6 7 8 9",
        " 6 7 8 9 10 11. Short one. ",
        "More of these that fit. ",
    ]


def test_long_between_short_sentences_with_overlap() -> None:
    chunks = parts(text_of(15, 30, 20, 5), 40, 1)
    assert [chunk.split()[0] for chunk in chunks] == ["Start0", "Start0", "6", "10", "Start2"]
    assert chunks[0] == sentence(15, "Start0")
    assert chunks[1].endswith(" 24")
    assert chunks[2].endswith("29. ")
    assert chunks[3].endswith(sentence(20, "Start2"))
    assert chunks[4] == sentence(20, "Start2") + sentence(5, "Start3")


def test_without_white_space_between_sentences_a_word_counts_twice() -> None:
    # 変更 and 次 are two words, but counted for the second sentence are both: 1 + 2 > 2.
    assert parts("変更。次。", 2, 0) == ["変更。", "次。"]
    assert parts("変更。 次。", 2, 0) == ["変更。 次。"]
    assert parts("Title\nText.", 2, 0) == ["Title\n", "Text."]


def test_a_sentence_boundary_inside_a_word_is_a_boundary_still() -> None:
    # To the word rules א.ב is one word; to the sentence rules א. is a sentence, in which no word ends.
    assert parts("א.ב ג.ד ה.ו", 1, 0) == ["א.ב ג.", "ד ה.", "ו"]


@pytest.mark.parametrize(
    "text",
    [
        "創業者がつくりあげた化粧品会社を世界企業へと成長させた。 2002年3月英文社名に改めた。" * 3,
        "هذا نص قصير. وهذه جملة ثانية؟ نعم! ثم الثالثة." * 3,
        "ภาษาไทยไม่มีช่องว่าง ระหว่างคำ แต่มีประโยค " * 5,
        "Emoji 👨‍👩‍👧 here! 🇫🇷🇩🇪 There? Yes 👍🏽. 𝒳𝒴 math. " * 3,
        "Mixed עברית and English. שלום world! " * 4,
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("overlap", [0, 1])
def test_other_scripts_are_cut_where_the_slow_chunker_cuts(text: str, size: int, overlap: int) -> None:
    assert sentence_chunks(text, size, overlap) == slow_chunkers.sentence_chunks(text, size, overlap)


@settings(max_examples=500, deadline=None)
@given(any_text, st.integers(1, 50), st.integers(0, 1))
def test_it_cuts_where_the_slow_chunker_cuts(text: str, size: int, overlap: int) -> None:
    assert sentence_chunks(text, size, overlap) == slow_chunkers.sentence_chunks(text, size, overlap)


@settings(max_examples=300, deadline=None)
@given(any_text, st.integers(20, 40), st.integers(0, 1))  # below 20, which no endpoint may have, they need not be
def test_chunks_are_slices_of_the_text_in_order(text: str, size: int, overlap: int) -> None:
    text *= 9
    chunks = sentence_chunks(text, size, overlap)
    assert chunks[0][0] == 0
    assert all(0 <= start <= end <= len(text) for start, end in chunks)
    assert all(one[0] <= two[0] and one[1] <= two[1] for one, two in pairwise(chunks))


def word_boundaries(text: str) -> set[int]:
    return {0, len(text), *(int(end) for found in word_segments(text) for end in found.ends)}


@settings(max_examples=300, deadline=None)
@given(english, st.integers(1, 30), st.integers(0, 1))
@example("e-mail.U.S.A.\xb8", 1, 0)
def test_chunks_of_prose_cover_it_and_hold_no_more_words_than_allowed(text: str, size: int, overlap: int) -> None:
    chunks = sentence_chunks(text, size, overlap)
    assert chunks[0][0] == 0
    assert chunks[-1][1] == len(text)
    for (before, end), (start, after) in pairwise(chunks):
        assert before <= start <= end <= after
    # ICU may end a sentence inside a word ("mail.U.S.A." and a cedilla); that word then counts for neither side,
    # as in Elasticsearch.
    whole = word_boundaries(text)
    assert all(count_words(text[start:end]) <= size for start, end in chunks if {start, end} <= whole)


def test_windows_of_a_long_text_meet_without_a_seam() -> None:
    text = "".join(sentence(5 + n % 40, f"Start{n}") for n in range(6000))
    chunks = sentence_chunks(text, 250, 1)
    assert len(text) > 400_000
    for (_, end), (start, _) in pairwise(chunks):
        assert text[start:end].startswith("Start")
        assert text[start:end].count(". ") == 1


def test_a_size_below_one_word_is_refused() -> None:
    with pytest.raises(ChunkingInvalid, match=r"max_chunk_size \[0\] must be >= 1"):
        sentence_chunks("a", 0, 0)
