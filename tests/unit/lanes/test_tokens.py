"""Estimates of tokens, and the ratio learnt from usage that may be nonsense."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workers.lanes.tokens import BYTES_PER_TOKEN, LEAST, MOST, TokenRatio, byte_length

SIZES = st.integers(-10, 10**12)
USAGE = st.one_of(st.integers(-(10**15), 10**15), st.floats(allow_nan=True, allow_infinity=True))


def test_an_estimate_starts_at_four_bytes_a_token_and_is_never_nothing() -> None:
    assert [TokenRatio().estimate(size) for size in (0, 1, 4, 400, 10**9)] == [1, 1, 1, 100, 250_000_000]


def test_the_first_usage_is_believed_and_later_ones_are_smoothed() -> None:
    ratio = TokenRatio()
    assert ratio.learn(300, 100)
    assert (ratio.bytes_per_token, ratio.seen) == (3.0, 1)
    assert ratio.learn(400, 100)
    assert ratio.bytes_per_token == pytest.approx(3.3)


def test_it_finds_the_ratio_of_a_tokenizer() -> None:
    ratio = TokenRatio()
    for size in (900, 2000, 150, 4000, 777):
        ratio.learn(size, size / 2.5)
    assert ratio.estimate(1000) == pytest.approx(400, abs=2)


@pytest.mark.parametrize("usage", [0, -1, 0.0, -0.0, math.nan, math.inf, -math.inf, 10**9, 1e-9])
def test_usage_that_is_absent_zero_or_nonsense_teaches_nothing(usage: float) -> None:
    ratio = TokenRatio()
    assert not ratio.learn(1000, usage)
    assert ratio == TokenRatio()


def test_usage_for_no_bytes_teaches_nothing() -> None:
    assert not TokenRatio().learn(0, 5)


@given(st.lists(st.tuples(SIZES, USAGE), max_size=50))
def test_no_usage_whatever_breaks_the_ratio(reports: list[tuple[int, float]]) -> None:
    ratio = TokenRatio()
    for size, used in reports:
        ratio.learn(size, used)
        assert LEAST <= ratio.bytes_per_token <= MOST
    assert ratio.estimate(10**9) >= 1
    assert math.isfinite(ratio.estimate(10**9))


@given(st.floats(LEAST, MOST), st.lists(st.integers(1000, 100_000), min_size=20, max_size=40))
def test_it_converges_on_any_sane_ratio(true: float, sizes: list[int]) -> None:
    ratio = TokenRatio()
    for size in sizes:
        ratio.learn(size, max(size / MOST, min(size / true, size / LEAST)))
    assert ratio.bytes_per_token == pytest.approx(true, rel=1e-6)


@given(st.integers(1, 10**9))
def test_more_bytes_are_never_fewer_tokens(size: int) -> None:
    ratio = TokenRatio(BYTES_PER_TOKEN * 0.77)
    assert ratio.estimate(size) <= ratio.estimate(size + 1000)


@pytest.mark.parametrize(("text", "length"), [("", 0), ("abc", 3), ("é", 2), ("€", 3), ("🎉", 4), ("\ud800", 3)])
def test_length_is_in_bytes_of_utf8(text: str, length: int) -> None:
    assert byte_length(text) == length


@given(st.text(st.characters(codec=None)))
def test_length_agrees_with_encoding(text: str) -> None:
    assert byte_length(text) == len(text.encode("utf-8", "surrogatepass"))
