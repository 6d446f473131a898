"""The stand-in's vectors."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stand_in.vectors import vector, vectors

DOCS = [
    "Class with methods to open, read, write, close, list zip files.",
    "Read and write ZIP files.",
    "Compress data with gzip and return the compressed bytes.",
    "Parse command line arguments into options and positionals.",
    "Send an email message over SMTP.",
    "Return the sine of x, measured in radians.",
    "Base class for warnings about features which may be deprecated in the future.",
]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("read a zip archive", {0, 1}),
        ("how do I compress bytes with gzip?", {2}),
        ("command-line argument parser", {3}),
        ("sending emails", {4}),
        ("deprecation warning", {6}),
    ],
)
def test_a_question_finds_the_text_that_shares_its_words_or_parts_of_them(question, expected):
    scores = vectors(DOCS, 256) @ vector(question, 256)
    assert int(np.argmax(scores)) in expected


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.integers(1, 300))
def test_a_row_is_the_texts_own_vector_bit_for_bit_whatever_its_neighbours(texts, dimensions):
    rows = vectors(texts, dimensions)
    assert rows.dtype == np.float32
    assert rows.shape == (len(texts), dimensions)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    for text, row in zip(texts, rows, strict=True):
        assert row.tobytes() == vector(text, dimensions).tobytes()


PINNED = [0.586205, 0.281379, 0.375171, -0.281379, 0.243275, 0.164137, -0.351723, 0.383965]


def test_the_vector_of_a_text_is_fixed_for_ever():
    row = vector("read a zip archive", 8)
    assert [round(float(value), 6) for value in row] == PINNED


def test_another_process_gives_the_same_bytes():
    code = "from penstock.stand_in.vectors import vector as v; print(v('naïve 文本 🙂', 64).tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == vector("naïve 文本 🙂", 64).tobytes().hex()


@pytest.mark.parametrize("pair", [("a b", "b a"), ("Text", "text"), ("a", "a "), ("", " "), ("?", "!"), ("7", "8")])
def test_texts_that_differ_have_vectors_that_differ(pair):
    assert not np.array_equal(vector(pair[0]), vector(pair[1]))


def test_thousands_of_short_texts_all_differ():
    rows = vectors([f"text {number}" for number in range(5000)], 64)
    assert len({row.tobytes() for row in rows}) == 5000


def test_long_words_and_text_without_spaces_are_near_where_they_overlap():
    near = vector("文本嵌入是一种把文本变成向量的方法而且很有用处") @ vector("把文本变成向量的方法而且很有用处非常好用")
    far = vector("文本嵌入是一种把文本变成向量的方法而且很有用处") @ vector(
        "今天天气很好我们去公园散步看花然后回家吃饭"
    )
    assert near > far + 0.2


def test_text_without_any_word_has_a_vector_too():
    for text in ("", "   ", "\n", "...", "🙂🙂", "\x00"):
        assert np.linalg.norm(vector(text)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("dimensions", [0, -1, 65537])
def test_dimensions_out_of_bounds_are_refused(dimensions):
    with pytest.raises(ValueError, match="from 1 to 65536"):
        vector("a", dimensions)
