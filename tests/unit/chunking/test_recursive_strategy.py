"""The recursive strategy: separators, merging, the fall-back to sentences, and the slow chunker."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.errors import InputInvalid
from penstock.config.java_regex import compile_java
from penstock.tasks.chunking import SEPARATOR_GROUPS, ChunkingInvalid, PatternTooSlow, count_words, recursive_chunks
from penstock.tasks.chunking import separators as separators_module
from penstock.tasks.chunking.separators import PatternBudget, match_starts
from support import slow_chunkers
from support.texts import MARKS, PROSE, any_text

TEN = "These ten words are one sentence of the test text. "
PLAIN, MARKDOWN = SEPARATOR_GROUPS["plaintext"], SEPARATOR_GROUPS["markdown"]


def parts(text: str, size: int, separators: list[str] | tuple[str, ...]) -> list[str]:
    chunks = recursive_chunks(text, size, separators)
    assert "".join(text[start:end] for start, end in chunks) == text
    return [text[start:end] for start, end in chunks]


@pytest.mark.parametrize("text", ["", " ", "a", "😀", TEN])
def test_a_text_that_fits_is_one_chunk(text: str) -> None:
    assert recursive_chunks(text, 10, ["e", " "]) == [(0, len(text))]


def test_the_separator_leads_the_chunk_that_follows() -> None:
    assert parts(TEN + "\n" + TEN, 10, ["\n"]) == [TEN, "\n" + TEN]


def test_neighbours_that_fit_together_are_merged() -> None:
    assert parts(TEN + "#" + TEN + "#" + TEN, 20, ["#"]) == [TEN + "#" + TEN, "#" + TEN]


def test_what_is_too_long_goes_on_with_the_next_separator() -> None:
    text = TEN + "\t" + TEN + "\n" + TEN + "\t" + TEN
    assert parts(text, 15, ["\n", "\t"]) == [TEN, "\t" + TEN, "\n" + TEN, "\t" + TEN]
    assert parts(text, 25, ["\n", "\t"]) == [TEN + "\t" + TEN, "\n" + TEN + "\t" + TEN]


def test_no_further_separator_is_tried_on_what_fits() -> None:
    text = TEN + "\t" + TEN + "\n" + TEN + "\f" + TEN + "\t" + TEN
    expected = [TEN + "\t" + TEN, "\n" + TEN + "\f" + TEN, "\t" + TEN]
    assert parts(text, 25, ["\n", "\t", "\f"]) == expected


def test_after_the_last_separator_sentences_are_the_pieces_without_overlap() -> None:
    assert parts(TEN + TEN + "\n" + TEN + TEN, 10, ["\n", "\f"]) == [TEN, TEN, "\n" + TEN, TEN]
    assert parts(TEN + TEN, 10, [f"absent{n}" for n in range(50)]) == [TEN, TEN]


def test_chunks_stay_in_the_order_of_the_text_whatever_depth_they_come_from() -> None:
    separators = [*(f"absent{n}" for n in range(10)), "\n", *(f"missing{n}" for n in range(10)), "\t", "never"]
    assert parts(TEN + "\t" + TEN + "\n" + TEN, 10, separators) == [TEN, "\t" + TEN, "\n" + TEN]


def test_single_line_feeds_and_paragraphs_are_told_apart() -> None:
    separators = [r"(?<!\n)\n(?!\n)", r"(?<!\n)\n\n(?!\n)"]
    text = TEN + "\n" + TEN + "\n" + TEN + "\n\n" + TEN
    assert parts(text, 10, separators) == [TEN, "\n" + TEN, "\n" + TEN, "\n\n" + TEN]


def test_the_plaintext_group_cuts_at_paragraphs_first_and_then_at_lines() -> None:
    text = TEN + "\n" + TEN + "\n\n" + TEN + "\n\n\n" + TEN
    assert parts(text, 20, PLAIN) == [TEN + "\n" + TEN, "\n\n" + TEN + "\n\n\n" + TEN]
    # Three line feeds are neither a paragraph nor a line to it, so sentences part them.
    assert parts(text, 10, PLAIN) == [TEN, "\n" + TEN, "\n\n" + TEN + "\n\n\n", TEN]


HEADINGS = [*("#" * level + " Heading\n" for level in range(1, 7)), "Heading\n-\n", "Heading\n===\n"]


@pytest.mark.parametrize("seed", range(10))
def test_the_markdown_group_cuts_before_each_kind_of_heading(seed: int) -> None:
    choose = random.Random(seed)
    sections = [choose.choice(HEADINGS) + TEN, *("\n" + choose.choice(HEADINGS) + TEN for _ in range(20))]
    assert parts("".join(sections), 15, MARKDOWN) == sections


def test_an_empty_match_moves_on_by_one_character_as_in_java() -> None:
    # Python, after the empty match at 0, finds "bb" there, and so passes over 1.
    assert list(match_starts(compile_java("|bb"), "bbb")) == [0, 1, 2, 3]
    assert list(match_starts(compile_java("b|$"), "abb")) == [1, 2, 3]
    assert list(match_starts(compile_java("(?=b)"), "abab")) == [1, 3]
    assert list(match_starts(compile_java("b*"), "abba")) == [0, 1, 3, 4]


def test_lines_begin_and_end_as_in_java() -> None:
    assert parts("a b\r\nc d\u2028e f", 2, ["^"]) == ["a b\r\n", "c d\u2028", "e f"]
    assert parts("a b\r\nc d\u2028e f", 2, ["$"]) == ["a b", "\r\nc d", "\u2028e f"]


def test_a_piece_is_matched_as_if_it_stood_alone() -> None:
    # Java's region has opaque bounds: the second separator, looking behind, does not see the text before the piece.
    assert parts("a b c#d e f", 2, ["#", r"(?<=c)#d|e"]) == ["a b", " c", "#d ", "e f"]


@pytest.mark.parametrize("separator", ["(", "[a&&]", r"\p{IsHun}", "(?<=a|bc", "a{", r"\G"])
def test_a_separator_that_cannot_be_used_is_named(separator: str) -> None:
    with pytest.raises(ChunkingInvalid) as caught:
        recursive_chunks("short", 10, ["\n", separator])
    assert f"separator [{separator}] cannot be used: " in str(caught.value)


SLOW = TEN * 2 + "a" * 5000 + "b"


@pytest.mark.parametrize("separator", ["(a+)+$", "(a|aa)+$", "(?:.*?,){25}P|(a|a?)+c"])
@pytest.mark.parametrize("text", [SLOW, SLOW + "\r\n"])
def test_a_pattern_that_backtracks_without_end_fails_its_text_and_is_named(
    monkeypatch: pytest.MonkeyPatch, separator: str, text: str
) -> None:
    monkeypatch.setattr(separators_module, "BUDGET_S", 0.2)
    began = time.thread_time()
    with pytest.raises(PatternTooSlow) as caught:
        recursive_chunks(text, 10, ["\n", separator])
    assert time.thread_time() - began < 2
    assert isinstance(caught.value, InputInvalid)
    assert caught.value.code == "pattern_too_slow"
    assert f"separator [{separator}] takes too long on this text of {len(text)} characters: write it" in str(
        caught.value
    )


def test_all_pieces_of_a_text_share_one_budget() -> None:
    budget = PatternBudget(0)
    assert len(list(match_starts(compile_java("a"), "a" * 10_000, budget))) == 10_000
    left = budget.seconds
    assert 0 < left < separators_module.BUDGET_S
    assert list(match_starts(compile_java("a"), "bab", budget)) == [1]
    assert budget.seconds < left
    budget.seconds = 0
    with pytest.raises(TimeoutError):
        list(match_starts(compile_java("a"), "a", budget))


def test_a_thread_that_was_held_up_goes_on_with_the_processor_time_that_it_has_left() -> None:
    # The time-out of regex goes by the wall clock, which runs on while a machine is busy or asleep.
    class HeldUp:
        times = 0

        def finditer(self, text: str, at: int, timeout: float) -> Iterator[Any]:
            self.times += 1
            yield from itertools.islice(compile_java("a").finditer(text, at), 2)
            if self.times == 1:
                raise TimeoutError

    pattern: Any = HeldUp()
    assert list(match_starts(pattern, "aba aa")) == [0, 2, 4, 5]
    assert pattern.times == 2


lines = st.lists(
    st.one_of(
        st.sampled_from(PROSE), st.sampled_from(MARKS), st.sampled_from([" "] * 4 + ["\n", "\n\n", "\n# ", "\t"])
    ),
    max_size=60,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.one_of(lines, any_text), st.integers(1, 15), st.sampled_from([PLAIN, ("\n", " "), ("\n\n", r"\n|\t", "x")]))
def test_it_cuts_where_the_slow_chunker_cuts(text: str, size: int, separators: tuple[str, ...]) -> None:
    assert recursive_chunks(text, size, separators) == slow_chunkers.recursive_chunks(text, size, separators)


@settings(max_examples=200, deadline=None)
@given(lines, st.integers(1, 15), st.sampled_from([PLAIN, MARKDOWN]))
def test_pieces_at_separators_are_the_text_and_fit(text: str, size: int, separators: tuple[str, ...]) -> None:
    chunks = recursive_chunks(text, size, separators)
    assert chunks[0][0] == 0
    assert chunks[-1][1] == len(text)
    assert all(count_words(text[start:end]) <= size for start, end in chunks)


def test_many_pieces_of_a_long_text_meet_without_a_seam() -> None:
    text = "\n\n".join(f"Paragraph {n} has\nsome six words. " for n in range(20_000))
    chunks = recursive_chunks(text, 6, PLAIN)
    assert len(chunks) == 20_000
    assert all(end == start for (_, end), (start, _) in pairwise(chunks))


def test_a_word_one_mark_before_a_separator_counts_for_the_piece_it_leads() -> None:
    # "a" ends one boundary before the separator, so the last piece counts as three words, and does not join the second.
    assert parts("p q r. \n\na.\n\nb c", 3, PLAIN) == ["p q r. ", "\n\na.", "\n\nb c"]
    assert parts("p q r. \n\na. \n\nb c", 3, PLAIN) == ["p q r. ", "\n\na. \n\nb c"]
