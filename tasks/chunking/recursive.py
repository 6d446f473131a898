"""The ``recursive`` strategy: cut at the first separator, cut what is still too long at the next.

Follows the newest of Elasticsearch's ``RecursiveChunker`` (index id 62289627402; offsets equal, code our own): with its
merge step, and separators compiled with ``MULTILINE``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import regex

from penstock.tasks.chunking.boundaries.word_count import WordCounter, count_words
from penstock.tasks.chunking.parameters import PatternTooSlow, check_size, no_text
from penstock.tasks.chunking.sentence import sentence_chunks
from penstock.tasks.chunking.separators import PatternBudget, compile_separators, match_starts

BATCH = 4096
"""Pieces whose words are counted together."""


class _Span(NamedTuple):
    start: int
    end: int
    words: int


def recursive_chunks(text: str, max_chunk_size: int, separators: Sequence[str]) -> list[tuple[int, int]]:
    r"""Split a text at separators, from the coarsest to the finest.

    A text that fits is one chunk. Else it is cut where matches of the first separator begin (so the separator leads the
    chunk that follows), neighbours that fit together are merged, and what is still too long goes on with the next
    separator; after the last one it is split into sentences, without overlap.

    Args:
        text: any text; an empty one is one empty chunk, a blank one is one chunk.
        max_chunk_size: words in a chunk at most, at least 1.
        separators: Java regular expressions (``java.util.regex``, ``MULTILINE``); see ``SEPARATOR_GROUPS``.

    Returns:
        ``(start, end)`` of each chunk in characters; together they are the text.

    Raises:
        ChunkingInvalid: a separator is no Java regular expression, or not supported; or the size is less than 1.
        PatternTooSlow: a separator takes too long on this text (``BUDGET_S``).
        InputInvalid: the text is no string.
    """
    if not isinstance(text, str):
        raise no_text(text)
    check_size(max_chunk_size)
    patterns = compile_separators(separators, text)
    spans, budget = [_Span(0, len(text), count_words(text))], PatternBudget(len(text))
    for separator, pattern in zip(separators, patterns, strict=True):
        if all(span.words <= max_chunk_size for span in spans):
            break
        try:
            spans = list(_cut_long(text, spans, pattern, max_chunk_size, budget))
        except TimeoutError:
            raise PatternTooSlow(
                f"separator [{separator}] takes too long on this text of {len(text)} characters: write it without "
                "nested repetition (a+ for (a+)+, [^,]*, for .*?,), or use another one"
            ) from None
    return [chunk for span in spans for chunk in _as_chunks(text, span, max_chunk_size)]


def _cut_long(
    text: str, spans: Iterable[_Span], pattern: regex.Pattern[str], most: int, budget: PatternBudget
) -> Iterator[_Span]:
    """Yield the pieces that fit, and in place of each that does not, its parts between matches, merged."""
    counter = WordCounter(text)
    for span in spans:
        if span.words <= most:
            yield span
        else:
            starts = match_starts(pattern, text[span.start : span.end], budget)
            yield from _merge(_parts(span, starts, counter), most)


def _parts(span: _Span, cuts: Iterable[int], counter: WordCounter) -> Iterator[_Span]:
    size = span.end - span.start
    places = np.unique(np.fromiter((cut for cut in cuts if 0 < cut < size), np.int64))
    places = np.concatenate(([0], places, [size])) + span.start
    for first in range(0, len(places) - 1, BATCH):
        batch = places[first : first + BATCH + 1]
        words = counter.count(batch[:-1], batch[1:]).tolist()
        for (start, end), count in zip(pairwise(batch.tolist()), words, strict=True):
            yield _Span(start, end, count)
        counter.forget(int(batch[-1]))


def _merge(parts: Iterable[_Span], most: int) -> Iterator[_Span]:
    """Join neighbours as long as the sum of their words fits."""
    whole: _Span | None = None
    for part in parts:
        if whole is None:
            whole = part
        elif whole.words + part.words <= most:
            whole = _Span(whole.start, part.end, whole.words + part.words)
        else:
            yield whole
            whole = part
    if whole is not None:
        yield whole


def _as_chunks(text: str, span: _Span, most: int) -> list[tuple[int, int]]:
    if span.words <= most:
        return [(span.start, span.end)]
    chunks = sentence_chunks(text[span.start : span.end], most, 0)
    return [(span.start + start, span.start + end) for start, end in chunks]
