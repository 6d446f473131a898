"""Vectors off the wire: what is right is read bit for bit, what is wrong is refused with a code."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.tasks.services.base import Refused
from penstock.tasks.services.wire import vectors
from penstock.workers.lanes.outcome import OutcomeKind


def b64(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


def refused(call: Any) -> str:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.outcome.kind is OutcomeKind.MALFORMED
    assert caught.value.outcome.message
    return caught.value.outcome.code


@pytest.mark.parametrize("rows", [[[1.0, 2.5], [3.0, 4.0]], [b64(1, 2.5), b64(3, 4)], [b64(1, 2.5), [3, 4]]])
def test_lists_and_base64_give_the_same_float32(rows: list[Any]) -> None:
    found = vectors.stack(rows, 2)
    assert found.dtype == np.float32
    assert found.tolist() == [[1.0, 2.5], [3.0, 4.0]]


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_float32_survives_the_wire_bit_for_bit(sent: Any) -> None:
    as_base64 = vectors.stack([base64.b64encode(row.astype("<f4").tobytes()).decode() for row in sent], 3)
    as_lists = vectors.stack([[float(x) for x in row] for row in sent], 3)
    assert as_base64.tobytes() == sent.tobytes()
    assert as_lists.tobytes() == sent.tobytes()


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([[1.0, float("nan")]], "not_finite"),
        ([[1.0, float("inf")]], "not_finite"),
        ([[1.0, None]], "not_finite"),
        ([[1.0, 1e39]], "not_finite"),
        ([b64(1, float("nan"))], "not_finite"),
        ([["1.0", "2.0"]], "bad_vector"),
        ([[True, False]], "bad_vector"),
        ([[[1.0, 2.0]]], "bad_vector"),
        ([[1.0, [2.0]]], "bad_vector"),
        ([[10**400, 1]], "bad_vector"),
        ([[]], "bad_vector"),
        ([""], "bad_vector"),
        (["not base64!"], "bad_vector"),
        ([base64.b64encode(b"12345").decode()], "bad_vector"),
        ([None], "bad_vector"),
        ([{"a": 1}], "bad_vector"),
        ([[1.0, 2.0], [1.0]], "wrong_count"),
        ([], "wrong_count"),
    ],
)
def test_a_row_that_is_no_finite_vector_is_refused(rows: list[Any], code: str) -> None:
    assert refused(lambda: vectors.stack(rows, 1)) == code


def test_rows_must_agree_in_length_and_with_what_was_asked() -> None:
    assert refused(lambda: vectors.stack([[1, 2], [1]], 2)) == "wrong_dimensions"
    assert refused(lambda: vectors.stack([[1, 2]], 1, dimensions=3)) == "wrong_dimensions"
    assert vectors.stack([[1, 2]], 1, dimensions=2).shape == (1, 2)


@pytest.mark.parametrize(
    ("encoding", "values", "dtype", "dimensions"),
    [
        ("int8", [-128, 127], np.int8, 2),
        ("uint8", [0, 255], np.uint8, 2),
        ("binary", [-128, 127], np.int8, 16),
        ("ubinary", [0, 255], np.uint8, 16),
    ],
)
def test_typed_encodings_give_typed_arrays_from_lists_and_base64(
    encoding: str, values: list[int], dtype: Any, dimensions: int
) -> None:
    as_base64 = base64.b64encode(np.array(values, dtype).tobytes()).decode()
    found = vectors.stack([values, as_base64], 2, dimensions=dimensions, encoding=encoding)
    assert found.dtype == dtype
    assert found.tolist() == [values, values]


@pytest.mark.parametrize(("encoding", "row"), [("int8", [128]), ("uint8", [-1]), ("int8", [0.5]), ("ubinary", [256])])
def test_a_number_outside_its_type_is_refused(encoding: str, row: list[float]) -> None:
    assert refused(lambda: vectors.stack([row], 1, encoding=encoding)) == "bad_vector"


def test_shuffled_answers_are_put_in_order() -> None:
    data = [{"index": 2, "embedding": "c"}, {"index": 0, "embedding": "a"}, {"index": 1, "embedding": "b"}]
    assert vectors.in_order(data, 3) == ["a", "b", "c"]


def test_without_any_index_the_order_counts() -> None:
    assert vectors.in_order([{"embedding": "a"}, {"embedding": "b", "index": None}], 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "missing_data"),
        ("list", "missing_data"),
        ([1, 2], "missing_data"),
        ([{"index": 0}], "wrong_count"),
        ([{"index": 0}] * 3, "wrong_count"),
        ([{"index": 0}, {"index": 0}], "wrong_index"),
        ([{"index": 1}, {"index": 2}], "wrong_index"),
        ([{"index": 0}, {}], "wrong_index"),
        ([{"index": -1}, {"index": 0}], "wrong_index"),
        ([{"index": "0"}, {"index": "1"}], "wrong_index"),
        ([{"index": True}, {"index": False}], "wrong_index"),
    ],
)
def test_a_wrong_count_or_index_is_refused(data: Any, code: str) -> None:
    assert refused(lambda: vectors.in_order(data, 2)) == code


@given(st.permutations(range(6)))
def test_any_order_of_the_answer_gives_the_order_of_the_inputs(order: list[int]) -> None:
    assert vectors.in_order([{"index": n, "embedding": n} for n in order], 6) == list(range(6))
