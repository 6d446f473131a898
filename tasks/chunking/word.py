"""The ``word`` strategy: windows of so many words, each sharing some with the one before.

Follows Elasticsearch's ``WordBoundaryChunker`` (offsets equal, code our own): chunk ``i`` holds the words
``i * step + 1 .. i * step + max`` where ``step = max - overlap``. It begins where word ``i * step`` ends, so white
space and punctuation belong to the chunk that follows them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from penstock.tasks.chunking.boundaries.streams import word_segments
from penstock.tasks.chunking.parameters import check_overlap, check_size, no_text


def word_chunks(text: str, max_chunk_size: int, overlap: int) -> list[tuple[int, int]]:
    """Split a text into chunks of ``max_chunk_size`` words.

    Args:
        text: any text; an empty one is one empty chunk, a blank one is one chunk.
        max_chunk_size: words in a chunk, at least 1.
        overlap: words that a chunk shares with the one before, 0 to ``max_chunk_size // 2``.

    Returns:
        ``(start, end)`` of each chunk in characters. What follows the last word of the last full chunk (a full stop,
        white space) is in no chunk, as in Elasticsearch.

    Raises:
        ChunkingInvalid: the overlap is negative or more than half of the size, or the size is less than 1.
        InputInvalid: the text is no string.
    """
    if not isinstance(text, str):
        raise no_text(text)
    check_size(max_chunk_size)
    check_overlap(max_chunk_size, overlap)
    return split_words(text, max_chunk_size, overlap)[0]


def split_words(text: str, max_chunk_size: int, overlap: int) -> tuple[list[tuple[int, int]], int]:
    """Return the chunks as ``word_chunks`` does, and how many words the last one holds."""
    step = max_chunk_size - overlap
    firsts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    lasts: list[NDArray[np.int64]] = []
    total = 0
    for ends in _word_ends(text):
        # Copied, for a view would keep all the ends it was taken from.
        firsts.append(ends[(step - 1 - total) % step :: step].copy())
        late = max_chunk_size - 1 - total
        lasts.append(ends[late if late >= 0 else late % step :: step].copy())
        total += len(ends)
    full = 0 if total < max_chunk_size else (total - max_chunk_size) // step + 1
    starts = np.concatenate(firsts)[: full + 1].tolist()
    stops = np.concatenate(lasts).tolist() if lasts else []
    left = total - full * step
    if left <= overlap and full:
        return list(zip(starts[:full], stops, strict=True)), max_chunk_size
    return list(zip(starts, [*stops, len(text)], strict=True)), left


def _word_ends(text: str) -> Iterator[NDArray[np.int64]]:
    return (found.ends[found.words] for found in word_segments(text))
