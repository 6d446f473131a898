"""Boundaries by ICU, as offsets of Python characters.

ICU counts UTF-16 code units, and icu4py refuses lone surrogates; here both are put right. Knows neither words nor
chunks.
"""

from __future__ import annotations

import re

import numpy as np
from icu4py.breakers import SentenceBreaker, WordBreaker
from numpy.typing import NDArray

from penstock.tasks.chunking.boundaries.characters import code_points

# The root locale, as Elasticsearch uses: boundaries do not depend on where a worker runs.
ROOT = ""

_SURROGATE = re.compile("[\ud800-\udfff]")


def word_ends(text: str) -> NDArray[np.int64]:
    """Return the end of every segment of ICU's word rules, ascending; the last is ``len(text)``. Empty for no text."""
    return _ends(WordBreaker, text)


def sentence_ends(text: str) -> NDArray[np.int64]:
    """Return the end of every sentence (its trailing white space included), ascending; the last is ``len(text)``."""
    return _ends(SentenceBreaker, text)


def _ends(breaker: type[WordBreaker] | type[SentenceBreaker], text: str) -> NDArray[np.int64]:
    try:
        segments = breaker(text, ROOT).segments()
    except UnicodeEncodeError:
        # A lone surrogate has the same (that is, no) break properties as U+FFFD.
        segments = breaker(_SURROGATE.sub("\ufffd", text), ROOT).segments()
    ends = np.fromiter((end for _, end in segments), np.int64)
    if len(ends) and ends[-1] != len(text):
        return _characters(ends, text)
    return ends


def _characters(units: NDArray[np.int64], text: str) -> NDArray[np.int64]:
    """Turn offsets of UTF-16 code units into offsets of characters: each character outside the BMP is two units."""
    outside = np.flatnonzero(code_points(text) > 0xFFFF)
    starts = outside + np.arange(len(outside))
    return units - np.searchsorted(starts, units)
