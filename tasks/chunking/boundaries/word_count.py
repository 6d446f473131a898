"""Counting words as Elasticsearch's chunkers count them.

Facts from ``ChunkerUtils.countWords`` and ``SentenceBoundaryChunker.skipWords`` of elastic/elasticsearch, whose word
iterator is ICU's with the root locale.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from penstock.tasks.chunking.boundaries.segments import Segments
from penstock.tasks.chunking.boundaries.streams import WINDOW, word_segments


def count_words(text: str) -> int:
    """Return how many words ICU counts in a whole text."""
    return sum(int(np.count_nonzero(found.words)) for found in word_segments(text))


class WordCounter:
    """Counts the words of ranges of a text that is read forwards.

    Args:
        text: the text.
        window: characters looked at together.
    """

    def __init__(self, text: str, window: int = WINDOW) -> None:
        self._length = len(text)
        self._stream: Iterator[Segments] = word_segments(text, window)
        # Boundaries that may still be asked for, and how many words have ended up to and with each. The text's start
        # is a boundary at which no word ends.
        self._ends = np.zeros(1, np.int32)
        self._totals = np.zeros(1, np.int32)

    def count(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the words of each range.

        Counted are the word boundaries from the last one before ``start`` up to and with ``end``. So a word that ends
        right there counts too, where no white space stands between (``変更。次``): Elasticsearch counts so.

        Args:
            starts: first characters, ascending, none before what was forgotten; ``(n,)``.
            ends: one past the last characters, ascending; ``(n,)``.
        """
        self._read_to(int(ends[-1]))
        upto = np.searchsorted(self._ends, ends, "right") - 1
        return (self._totals[upto] - self._ends_before(self._boundary_before(starts))).astype(np.int64)

    def skip(self, start: int, words: int) -> int:
        """Return where a reader stands who, from the boundary before ``start``, has passed ``words`` words.

        That is one boundary further than the last word's end; and the boundary before ``start`` for no words at all,
        so that the white space before a sentence comes along.

        Args:
            start: a place that was not forgotten.
            words: at most as many as were counted from ``start`` on.
        """
        before = self._boundary_before(np.asarray([start], np.int64))
        if not words:
            return int(self._ends[before[0]])
        wanted = int(self._ends_before(before)[0]) + words
        place = int(np.searchsorted(self._totals, wanted)) + 1
        return int(self._ends[place]) if place < len(self._ends) else self._length

    def forget(self, start: int) -> None:
        """Let go what lies before ``start``; only later places are asked for from now on."""
        before = int(self._boundary_before(np.asarray([start], np.int64))[0])
        # The one before it is kept as well: it tells whether a word ends at the boundary itself.
        if before - 1 > len(self._ends) // 2:
            self._ends = self._ends[before - 1 :].copy()
            self._totals = self._totals[before - 1 :].copy()

    def _boundary_before(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum(np.searchsorted(self._ends, starts, "left") - 1, 0)

    def _ends_before(self, boundaries: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how many words have ended before each boundary, itself not counted."""
        return np.where(boundaries > 0, self._totals[boundaries - 1], 0)

    def _read_to(self, end: int) -> None:
        ends, totals = [self._ends], [self._totals]
        while ends[-1][-1] < end:
            found = next(self._stream)
            ends.append(found.ends.astype(np.int32))
            totals.append(np.cumsum(found.words, dtype=np.int32) + totals[-1][-1])
        if len(ends) > 1:
            self._ends = np.concatenate(ends)
            ends.clear()  # of one endless sentence the parts weigh as much as the whole
            self._totals = np.concatenate(totals)
