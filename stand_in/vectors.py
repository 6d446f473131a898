"""Deterministic vectors for texts: the same on every machine, near where texts share words and parts of words.

A text is a bag of lower-case words; a word is a bag of features: itself and its character trigrams, hashed with CRC-32
to a signed bucket (feature hashing). Weights are whole numbers and sums of them are exact in float64, so a vector does
not depend on the batch, the order of sums or the processor; one division and one rounding to float32 follow.

It is no model: it knows no meaning, only spelling. It knows nothing of HTTP either.
"""

from __future__ import annotations

import math
import re
import threading
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_DIMENSIONS = 1 << 16

_FEATURES = 16  # of one word: itself and at most 15 trigrams, so that all words fit one rectangular table
_PART = 6  # longer words, and text without spaces, are cut into overlapping pieces of so many characters
_MAX_WORDS = 400_000  # the table is forgotten when it has so many: 80 MB
_WORDS = re.compile(r"[^\W_]+")
_COMMON_WORDS = (
    "a an and are as at be by can do does for from has have how i if in is it its may no not of on or that the this to "
    "was we what when where which who will with you"
)
_COMMON = frozenset(_COMMON_WORDS.split())
# Grows as the square root of how often a word comes.
_COUNT_WEIGHTS: NDArray[np.float64] = np.array([float(math.isqrt(256 * count)) for count in range(1024)])


def _mix(value: int) -> int:
    """Spread the bits of a CRC, whose low bits are too regular for buckets."""
    value = (value * 0x9E3779B1) & 0xFFFFFFFF
    value ^= value >> 15
    value = (value * 0x85EBCA77) & 0xFFFFFFFF
    return value ^ (value >> 13)


def _features(word: str) -> list[tuple[int, int]]:
    """Return ``(hash, signed weight)`` of each feature of a word; words count alike whatever their length."""
    scale = 1 if word in _COMMON else 4 if len(word) < 3 else 8
    padded = f"<{word}>"
    grams = [padded[start : start + 3] for start in range(len(word))][: _FEATURES - 1]
    weights = [16] + [math.isqrt(576 // len(grams))] * len(grams)
    features = []
    for name, weight in zip([f"w{word}"] + [f"g{gram}" for gram in grams], weights, strict=True):
        mixed = _mix(zlib.crc32(name.encode("utf-8", "surrogatepass")))
        features.append((mixed >> 1, weight * scale * (1 if mixed & 1 else -1)))
    return features


class _Words(dict[str, int]):
    """Row numbers by word, rows being made as words come; ``hashes`` and ``weights`` are ``(rows, 16)``."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Start again with an empty table."""
        self.clear()
        self.hashes = np.zeros((4096, _FEATURES), np.uint64)
        self.weights = np.zeros((4096, _FEATURES), np.float64)

    def __missing__(self, word: str) -> int:
        row = len(self)
        if row == len(self.hashes):
            self.hashes = np.concatenate([self.hashes, np.zeros_like(self.hashes)])
            self.weights = np.concatenate([self.weights, np.zeros_like(self.weights)])
        for column, (hashed, weight) in enumerate(_features(word)):
            self.hashes[row, column] = hashed
            self.weights[row, column] = weight
        self[word] = row
        return row


_words = _Words()
_lock = threading.Lock()


def _split(text: str) -> list[str]:
    words = _WORDS.findall(text.lower())
    if not words:
        return [text[start : start + 2] for start in range(min(len(text), 512))] or ["\0"]
    if max(map(len, words)) < _FEATURES:
        return words
    parts: list[str] = []
    for word in words:
        if len(word) < _FEATURES:
            parts.append(word)
        else:
            parts.extend(word[start : start + _PART] for start in range(len(word) - _PART + 1))
    return parts


def _fingerprints(texts: Sequence[str], dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return two faint features of each whole text, so that texts of the same words still differ."""
    crc = np.array([zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts], np.uint64)
    mixed = np.stack([crc * np.uint64(0x9E3779B1), crc * np.uint64(0x85EBCA77)], axis=1) & np.uint64(0xFFFFFFFF)
    buckets = ((mixed >> np.uint64(1)) * np.uint64(dimensions) >> np.uint64(31)).astype(np.int64)
    return buckets, np.where(mixed & np.uint64(1), 48.0, -48.0)


def vectors(texts: Sequence[str], dimensions: int = 256) -> NDArray[np.float32]:
    """Return the vectors of ``texts``: ``(n, dimensions)`` float32, each of unit norm.

    Row ``i`` is ``vector(texts[i], dimensions)`` bit for bit, whatever its neighbours are.

    Raises:
        ValueError: ``dimensions`` is not from 1 to 65536.
    """
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"dimensions must be from 1 to {MAX_DIMENSIONS}, not {dimensions}")
    rows: list[int] = []
    counts: list[int] = []
    lengths: list[int] = []
    with _lock:
        if len(_words) > _MAX_WORDS:
            _words.forget()
        for text in texts:
            bag = Counter(_split(text))
            rows.extend(map(_words.__getitem__, bag))
            counts.extend(bag.values())
            lengths.append(len(bag))
        places = np.array(rows, np.int64)
        hashes, weights = _words.hashes[places], _words.weights[places]
    n = len(texts)
    buckets = (hashes * np.uint64(dimensions) >> np.uint64(31)).astype(np.int64)
    buckets += np.repeat(np.arange(n) * dimensions, lengths)[:, None]
    weights = weights * _COUNT_WEIGHTS[np.minimum(counts, len(_COUNT_WEIGHTS) - 1)][:, None]
    flat = np.bincount(buckets.ravel(), weights.ravel(), n * dimensions)
    sums: NDArray[np.float64] = flat.astype(np.float64, copy=False).reshape(n, dimensions)
    faint_buckets, faint = _fingerprints(texts, dimensions)
    sums[np.arange(n), faint_buckets[:, 0]] += faint[:, 0]
    sums[np.arange(n), faint_buckets[:, 1]] += faint[:, 1]
    return _unit(sums)


def _unit(sums: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale rows of whole numbers to unit norm; a row of zeros becomes the first axis."""
    sums[~sums.any(axis=1), 0] = 1.0
    # The squares are whole numbers below 2**53, so their sum is exact in any order.
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    result: NDArray[np.float32] = (sums / norms[:, None]).astype(np.float32)
    return result


def vector(text: str, dimensions: int = 256) -> NDArray[np.float32]:
    """Return the one right vector of ``text``: ``(dimensions,)`` float32 of unit norm. Pure."""
    row: NDArray[np.float32] = vectors([text], dimensions)[0]
    return row
