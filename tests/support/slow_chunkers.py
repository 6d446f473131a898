"""The chunkers once more: slow, plain, step by step, with ICU's own iterators. What the fast ones are held against.

Written from the description of Elasticsearch's chunkers: no table, no windows, no numpy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from support import icu

Span = tuple[int, int]


class WordIterator:
    """ICU's word iterator over a text, as a list of boundaries; a word ends at some. The start is the first."""

    def __init__(self, text: str) -> None:
        self.places = [(0, False), *((end, status != 0) for end, status in icu.boundaries(text, icu.WORD))]

    def preceding(self, start: int) -> int:
        """Return the index of the last boundary before ``start``; of the first one, if there is none."""
        return max([n for n, (place, _) in enumerate(self.places) if place < start], default=0)

    def count(self, start: int, end: int) -> int:
        n, words = self.preceding(start), 0
        while n < len(self.places) and self.places[n][0] <= end:
            words += self.places[n][1]
            n += 1
        return words

    def skip(self, start: int, words: int) -> int:
        n, passed = self.preceding(start), 0
        while n < len(self.places) and passed < words:
            passed += self.places[n][1]
            n += 1
        return self.places[n][0] if n < len(self.places) else self.places[-1][0]


def word_chunks(text: str, size: int, overlap: int) -> list[Span]:
    return [(start, end) for start, end, _ in _windows(text, size, overlap)]


def _windows(text: str, size: int, overlap: int) -> list[tuple[int, int, int]]:
    windows: list[tuple[int, int, int]] = []
    start = mark = in_window = since_mark = 0
    for place, is_word in WordIterator(text).places[1:]:
        if not is_word:
            continue
        in_window += 1
        since_mark += 1
        if in_window == size:
            windows.append((start, place, in_window))
            in_window = overlap
            start = place if overlap == 0 else mark
        if since_mark == size - overlap:
            mark, since_mark = place, 0
    if in_window > overlap or not windows:
        windows.append((start, len(text), in_window))
    return windows


def sentence_chunks(text: str, size: int, overlap: int) -> list[Span]:
    words = WordIterator(text)
    chunks: list[Span] = []
    chunk_start = chunk_words = previous_start = previous_words = 0
    sentence_start = 0
    for sentence_end, _ in icu.boundaries(text, icu.SENTENCE):
        here = words.count(sentence_start, sentence_end)
        if chunk_words + here <= size:
            chunk_words += here
        else:
            if chunk_words > 0:
                chunks.append((chunk_start, sentence_start))
                chunk_start, chunk_words = sentence_start, here
                if overlap and previous_words + here <= size:
                    chunk_start, chunk_words = previous_start, previous_words + here
                elif overlap:
                    skipped = max(previous_words - min(size // 2, 20), 0)
                    chunk_start = words.skip(previous_start, skipped)
                    chunk_words = previous_words - skipped + here
            else:
                chunk_words = here
            if chunk_words > size:
                *full, last = _windows(text[chunk_start:sentence_end], size, min(20, (size - 1) // 2))
                chunks += [(chunk_start + start, chunk_start + end) for start, end, _ in full]
                chunk_start, chunk_words = chunk_start + last[0], last[2]
        previous_start, previous_words = sentence_start, here
        sentence_start = sentence_end
    if chunk_words > 0:
        chunks.append((chunk_start, len(text)))
    return chunks or [(0, len(text))]


def recursive_chunks(text: str, size: int, separators: Sequence[str]) -> list[Span]:
    """Separators here are Python's, and match no empty text."""
    words = WordIterator(text)

    def divide(start: int, end: int, count: int, left: Sequence[str]) -> list[Span]:
        if count <= size:
            return [(start, end)]
        if not left:
            return [(start + a, start + b) for a, b in sentence_chunks(text[start:end], size, 0)]
        cuts = [match.start() for match in re.finditer(left[0], text[start:end], re.MULTILINE)]
        places = [start, *(start + cut for cut in cuts if cut), end]
        parts = [(a, b, words.count(a, b)) for a, b in pairwise(places)]
        merged = parts[:1]
        for a, b, n in parts[1:]:
            if merged[-1][2] + n <= size:
                merged[-1] = (merged[-1][0], b, merged[-1][2] + n)
            else:
                merged.append((a, b, n))
        return [span for a, b, n in merged for span in divide(a, b, n, left[1:])]

    return divide(0, len(text), words.count(0, len(text)), separators)
