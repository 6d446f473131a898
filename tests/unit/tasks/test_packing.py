"""Texts are packed into requests in order, each once, within the caps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import Caps, TaskType
from penstock.tasks.request.packing import (
    CERTAINLY_TOO_LONG,
    HEADROOM,
    REQUEST_BYTES,
    budget_tokens,
    certainly_too_long,
    pack,
)
from penstock.workers.lanes.tokens import byte_length

WIDE = Caps(inputs=2048, input_tokens=8192, request_tokens=300_000)
SIZES = st.lists(st.one_of(st.integers(0, 2000), st.integers(0, 5_000_000)), max_size=200)
CAPS = st.builds(
    Caps, st.integers(1, 50), st.one_of(st.none(), st.integers(1, 9000)), st.one_of(st.none(), st.integers(1, 300_000))
)
BUDGETS = st.one_of(st.none(), st.floats(1.0, 1e6))
RATIOS = st.floats(0.5, 64.0)


def packed(sizes: list[int], caps: Caps = WIDE, budget: float | None = None, ratio: float = 4.0) -> list[list[int]]:
    return [list(each) for each in pack(sizes, caps, budget, ratio)]


@given(SIZES, CAPS, BUDGETS, RATIOS)
def test_every_position_is_in_exactly_one_request_and_in_order(
    sizes: list[int], caps: Caps, budget: float | None, ratio: float
) -> None:
    requests = packed(sizes, caps, budget, ratio)
    assert [position for request in requests for position in request] == list(range(len(sizes)))
    assert all(requests)


@given(SIZES, CAPS, BUDGETS, RATIOS)
def test_no_cap_is_exceeded_except_by_a_single_text(
    sizes: list[int], caps: Caps, budget: float | None, ratio: float
) -> None:
    for request in packed(sizes, caps, budget, ratio):
        total = sum(sizes[n] for n in request)
        assert len(request) <= caps.inputs
        if len(request) == 1:
            continue
        assert total <= REQUEST_BYTES
        if caps.request_tokens is not None:
            assert total / ratio <= caps.request_tokens * HEADROOM * (1 + 1e-9)
        if budget is not None:
            assert total / ratio <= budget * (1 + 1e-9)
        if caps.input_tokens is not None:
            assert all(sizes[n] / ratio <= caps.input_tokens for n in request), "near or over the cap: alone"


@given(st.lists(st.integers(1, 2000), max_size=200), st.integers(1, 50), BUDGETS)
def test_no_two_neighbouring_requests_would_have_fitted_into_one(
    sizes: list[int], inputs: int, budget: float | None
) -> None:
    caps = Caps(inputs=inputs)
    requests = packed(sizes, caps, budget)
    most = min(REQUEST_BYTES, budget * 4.0) if budget else REQUEST_BYTES
    for first, second in pairwise(requests):
        one_more = [*first, second[0]]
        assert len(one_more) > inputs or sum(sizes[n] for n in one_more) > most


@pytest.mark.parametrize(
    ("sizes", "caps", "budget", "wanted"),
    [
        ([], WIDE, None, []),
        ([10], WIDE, None, [[0]]),
        ([10, 10, 10], Caps(inputs=2), None, [[0, 1], [2]]),
        ([10, 10, 10], Caps(inputs=1), None, [[0], [1], [2]]),
        ([0, 0, 0], Caps(inputs=3), None, [[0, 1, 2]]),
        ([400, 400, 400], WIDE, 200.0, [[0, 1], [2]]),  # 100 tokens each
        ([4000, 40, 40], WIDE, 200.0, [[0], [1, 2]]),  # one alone may exceed the budget
        ([40, 40_000, 40], WIDE, None, [[0], [1], [2]]),  # 10,000 tokens: over the cap of an input, so alone
        ([400_000] * 3, Caps(inputs=9, request_tokens=300_000), None, [[0, 1], [2]]),
        ([3_000_000, 3_000_000], Caps(inputs=9), None, [[0], [1]]),  # no cap at all: messages stay bounded
    ],
)
def test_examples(sizes: list[int], caps: Caps, budget: float | None, wanted: list[list[int]]) -> None:
    assert packed(sizes, caps, budget) == wanted


def test_a_cap_of_no_inputs_is_taken_for_one() -> None:
    assert packed([1, 1], Caps(inputs=0)) == [[0], [1]]


def test_it_packs_as_it_reads_so_that_a_corpus_need_not_be_in_memory() -> None:
    read = 0

    def endless() -> object:
        nonlocal read
        while True:
            read += 1
            yield 100

    requests = pack(endless(), Caps(inputs=10))  # type: ignore[arg-type]
    assert [next(requests), next(requests)] == [range(10), range(10, 20)]
    assert read <= 21


# The lane's budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rpm", "tpm", "budget"),
    [
        (None, None, None),
        (600, None, None),
        (None, 1_000_000, 1_000_000 / 120),  # half a second's worth
        (3000, 1_000_000, 1_000_000 / 120),
        (60, 1_000_000, 1.25 * 1_000_000 / 60),  # requests are scarcer: fatter ones, a quarter to spare
        (None, 60, 1.0),
        (None, 0.5, 1.0),  # a limit smaller than one token a request
    ],
)
def test_the_budget_of_a_request(rpm: float | None, tpm: float | None, budget: float | None) -> None:
    assert budget_tokens(RateLimit(rpm, tpm)) == pytest.approx(budget)


@given(st.one_of(st.none(), st.floats(0.1, 1e6)), st.floats(0.1, 1e9))
def test_full_requests_can_use_the_whole_quota_of_tokens(rpm: float | None, tpm: float) -> None:
    budget = budget_tokens(RateLimit(rpm, tpm))
    assert budget is not None
    assert budget >= 1
    if rpm is not None:
        assert budget * rpm >= tpm


def test_an_endpoints_caps_and_limits_are_used() -> None:
    made = Endpoint("a", TaskType.TEXT_EMBEDDING, "openai", {}, rate_limit=RateLimit(None, 24_000), caps=WIDE)
    budget = budget_tokens(made.rate_limit)
    assert [list(each) for each in pack([400] * 5, made.caps, budget)] == [[0, 1], [2, 3], [4]]
    assert [list(each) for each in pack([400] * 5, made.caps, budget, 8.0)] == [[0, 1, 2, 3], [4]]


@pytest.mark.parametrize(
    ("text", "caps", "is_too_long"),
    [
        ("", WIDE, False),
        ("a" * int(8192 * 4 * CERTAINLY_TOO_LONG), WIDE, False),
        ("a" * int(8192 * 4 * CERTAINLY_TOO_LONG + 1), WIDE, True),
        ("€" * int(8192 * 4 * CERTAINLY_TOO_LONG / 3 + 1), WIDE, True),
        ("a" * 10_000_000, Caps(), False),
    ],
)
def test_only_what_no_tokenizer_could_fit_is_refused_unasked(text: str, caps: Caps, is_too_long: bool) -> None:
    assert certainly_too_long(byte_length(text), caps) is is_too_long
