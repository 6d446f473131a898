"""What a word is: facts of ICU, and the tables that stand for them."""

# ruff: noqa: RUF001 - look-alike characters are what is tested

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.tasks.chunking import count_words
from penstock.tasks.chunking.boundaries import characters
from penstock.tasks.chunking.boundaries.segments import Segments, by_icu, by_table
from penstock.tasks.chunking.boundaries.streams import sentence_ends, word_segments
from penstock.tasks.chunking.boundaries.word_count import WordCounter
from support import icu
from support.slow_chunkers import WordIterator
from support.texts import any_text, english, mixed

SURROGATES = range(0xD800, 0xE000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("   ", 0),
        ("one", 1),
        ("foo != bar", 2),
        ("foo & bar", 2),
        ("m&s", 2),
        ("e-mail", 2),
        ("Won't", 1),
        ("Won’t", 1),
        ("3.14", 1),
        ("1,000.50", 1),
        ("a_b", 1),
        ("__", 1),
        ("_", 0),
        ("_ _", 0),
        ("½ ⅓ ① ²", 0),
        ("Ⅷ", 1),
        ("😀 👍🏽 👨‍👩‍👧 🇫🇷", 0),
        ("日本語のテキスト", 3),
        ("変更。次", 2),
        ("한국어 문장", 2),
        ("ภาษาไทย", 2),
        ("שלום עולם", 2),
        ("السلام عليكم", 2),
        ("𝒳𝒴 𠀀", 2),
        ("cafe\u0301", 1),
        ("a\u00adb", 1),
    ],
)
def test_words_are_counted_as_icu_counts_them(text: str, words: int) -> None:
    assert count_words(text) == words
    assert sum(status != 0 for _, status in icu.boundaries(text, icu.WORD)) == words


def test_every_character_has_the_status_that_icu_gives_it() -> None:
    assigned = [*range(0x34000), *range(0xE0000, 0xE1000)]  # elsewhere is nothing, or private use
    codes = [code for code in assigned if code not in SURROGATES and code not in (0xA, 0xD)]
    for form in ("{}\n", "{}\u0301\n", "{0}{0}\n", "{}\u2e80\n"):
        for first in range(0, len(codes), 1 << 16):
            text = "".join(form.format(chr(code)) for code in codes[first : first + (1 << 16)])
            expected = icu.boundaries(text, icu.WORD)
            found = by_icu(text)
            wrong = [
                (end, status)
                for (end, status), ours in zip(expected, found.words.tolist(), strict=True)
                if (status != 0) != ours
            ]
            assert [hex(ord(text[end - 1])) for end, _ in wrong] == []


def test_the_table_of_classes_is_the_word_break_property() -> None:
    # Numbers of ICU's UWordBreakValues. OTHER holds the double quote too, which joins Hebrew letters only.
    known = {
        characters.OTHER: {0, 16},
        characters.LETTER: {1},
        characters.DIGIT: {6},
        characters.UNDERSCORE: {7},
        characters.MID_LETTER: {4},
        characters.MID_NUMBER: {5},
        characters.MID_BOTH: {11, 15},
        characters.SPACE: {22},
        characters.CR: {8},
        characters.LF: {10},
        characters.NEWLINE: {12},
    }
    simple = np.flatnonzero(characters.classes() != characters.COMPLEX).tolist()
    assert len(simple) > 1900
    assert [hex(code) for code in simple if icu.word_break(code) not in known[int(characters.classes()[code])]] == []


def test_all_of_ascii_needs_no_icu() -> None:
    assert np.all(characters.classes()[:128] != characters.COMPLEX)


def same(one: Segments, other: Segments) -> bool:
    return one.ends.tolist() == other.ends.tolist() and one.words.tolist() == other.words.tolist()


@settings(max_examples=400, deadline=None)
@given(any_text)
def test_segments_and_words_are_those_of_icus_own_iterator(text: str) -> None:
    found = by_icu(text)
    expected = [(end, status != 0) for end, status in icu.boundaries(text, icu.WORD)]
    assert list(zip(found.ends.tolist(), found.words.tolist(), strict=True)) == expected


@settings(max_examples=400, deadline=None)
@given(st.one_of(english, mixed, st.text(alphabet=st.characters(max_codepoint=0x2100), max_size=40), st.text()))
def test_the_table_finds_what_icu_finds(text: str) -> None:
    assert same(by_table(text), by_icu(text))


@settings(max_examples=300, deadline=None)
@given(st.one_of(english, mixed, st.text()), st.integers(1, 12))
def test_windows_do_not_change_words_or_sentences(text: str, window: int) -> None:
    found = list(word_segments(text, window))
    whole = by_icu(text)
    assert [end for part in found for end in part.ends.tolist()] == whole.ends.tolist()
    assert [word for part in found for word in part.words.tolist()] == whole.words.tolist()
    ends = [end for part in sentence_ends(text, window) for end in part.tolist()]
    assert ends == [end for end, _ in icu.boundaries(text, icu.SENTENCE)]


@pytest.mark.parametrize("text", ["a\ud800b. \udc00C d.", "\udfff", "x\ud83d y"])
def test_lone_surrogates_are_read_as_icu_reads_them(text: str) -> None:
    assert by_icu(text).ends.tolist() == [end for end, _ in icu.boundaries(text, icu.WORD)]
    assert same(by_table(text), by_icu(text))
    assert [end for part in sentence_ends(text) for end in part.tolist()] == [
        end for end, _ in icu.boundaries(text, icu.SENTENCE)
    ]


@settings(max_examples=200, deadline=None)
@given(any_text.filter(bool), st.integers(1, 9), st.data())
def test_a_counter_that_reads_forwards_counts_and_skips_as_the_plain_one(
    text: str, window: int, data: st.DataObject
) -> None:
    plain, counter = WordIterator(text), WordCounter(text, window)
    places = data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=8, unique=True).map(sorted))
    starts, ends = np.array(places[:-1]), np.array(places[1:])
    expected = [plain.count(start, end) for start, end in pairwise(places)]
    for n in range(len(starts)):
        assert counter.count(starts[n : n + 1], ends[n : n + 1]).tolist() == expected[n : n + 1]
        for words in {0, expected[n] // 2, expected[n]}:
            if plain.skip(places[n], words) <= ends[n]:
                assert counter.skip(places[n], words) == plain.skip(places[n], words)
        counter.forget(places[n])


def test_a_word_right_before_a_sentence_without_white_space_counts_twice() -> None:
    # 変更 / 。 / 次: counting from 次 (3) begins at the boundary before it, where 変更 ends.
    assert WordCounter("変更。次").count(np.array([3]), np.array([4])).tolist() == [2]
    assert WordCounter("Yes. No").count(np.array([5]), np.array([7])).tolist() == [1]
    assert WordCounter("Title\nText").count(np.array([6]), np.array([10])).tolist() == [2]


def test_skipping_no_words_stands_before_the_white_space() -> None:
    counter = WordCounter("One two. Three four. Five.")
    counter.count(np.array([0]), np.array([26]))
    assert counter.skip(9, 0) == 8
    assert counter.skip(9, 1) == 15
    assert counter.skip(0, 0) == 0
