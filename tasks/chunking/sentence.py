"""The ``sentence`` strategy: whole sentences, as many as fit, with the sentence before as an overlap.

Follows Elasticsearch's ``SentenceBoundaryChunker`` (offsets equal, code our own).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from penstock.tasks.chunking.boundaries.streams import sentence_ends
from penstock.tasks.chunking.boundaries.word_count import WordCounter
from penstock.tasks.chunking.parameters import check_size, no_text
from penstock.tasks.chunking.word import split_words

MOST_OVERLAP = 20
"""Words that are carried over at most, where a sentence is cut for an overlap or split."""


def sentence_chunks(text: str, max_chunk_size: int, sentence_overlap: int) -> list[tuple[int, int]]:
    """Split a text into chunks of whole sentences.

    Args:
        text: any text; an empty one is one empty chunk, a blank one is one chunk.
        max_chunk_size: words in a chunk at most, at least 1. A sentence with more is split between words, each piece
            sharing ``min(20, (max_chunk_size - 1) // 2)`` words with the one before.
        sentence_overlap: 1 to begin each chunk with the last sentence of the one before (or, where the two do not fit,
            with its last ``min(max_chunk_size // 2, 20)`` words), else 0.

    Returns:
        ``(start, end)`` of each chunk in characters.

    Raises:
        ChunkingInvalid: the size is less than 1.
        InputInvalid: the text is no string.
    """
    if not isinstance(text, str):
        raise no_text(text)
    check_size(max_chunk_size)
    if _surely_fits(text, max_chunk_size):
        return [(0, len(text))]
    counter = WordCounter(text)
    chunker = _Chunker(text, counter, max_chunk_size, sentence_overlap > 0)
    for sentence in _sentences(text, counter):
        chunker.add(sentence)
    return chunker.finish()


def _surely_fits(text: str, most: int) -> bool:
    """Tell a short text by its length alone: a word has a character, and each sentence may count one word twice.

    In ASCII no sentence but the last ends with a word, so what stands between them makes up for that.
    """
    return len(text) * (1 if text.isascii() else 2) <= most


@dataclass(frozen=True)
class _Sentence:
    start: int
    end: int
    words: int


def _sentences(text: str, counter: WordCounter) -> Iterator[_Sentence]:
    start = 0
    for ends in sentence_ends(text):
        starts = np.concatenate(([start], ends[:-1]))
        words = counter.count(starts, ends)
        for sentence in zip(starts.tolist(), ends.tolist(), words.tolist(), strict=True):
            yield _Sentence(*sentence)
        counter.forget(int(starts[-1]))  # the next one may reach back to this sentence
        start = int(ends[-1])


@dataclass
class _Chunker:
    """Takes sentences in order; the chunk that still grows is ``text[start:...]`` with ``words`` in it."""

    text: str
    counter: WordCounter
    most: int
    overlap: bool
    start: int = 0
    words: int = 0
    before: _Sentence = _Sentence(0, 0, 0)
    chunks: list[tuple[int, int]] = field(default_factory=list)

    def add(self, sentence: _Sentence) -> None:
        """Let the open chunk take the sentence; if it is full, begin another with it."""
        if self.words + sentence.words <= self.most:
            self.words += sentence.words
        else:
            if self.words:
                self.chunks.append((self.start, sentence.start))
                self._begin(sentence)
            else:
                self.words = sentence.words
            if self.words > self.most:
                self._split(sentence.end)
        self.before = sentence

    def finish(self) -> list[tuple[int, int]]:
        """Close the open chunk at the text's end and return all of them."""
        if self.words or not self.chunks:
            self.chunks.append((self.start if self.words else 0, len(self.text)))
        return self.chunks

    def _begin(self, sentence: _Sentence) -> None:
        """Open a chunk for ``sentence``, with what is carried over from the one before it."""
        if not self.overlap:
            self.start, self.words = sentence.start, sentence.words
            return
        kept, self.start = self.before.words, self.before.start
        if kept + sentence.words > self.most:
            kept = min(kept, self.most // 2, MOST_OVERLAP)
            self.start = self.counter.skip(self.before.start, self.before.words - kept)
        self.words = kept + sentence.words

    def _split(self, end: int) -> None:
        """Split the open chunk, too long, between words; the last piece stays open for the sentences that follow."""
        parts, words = split_words(self.text[self.start : end], self.most, min(MOST_OVERLAP, (self.most - 1) // 2))
        self.chunks += [(self.start + first, self.start + last) for first, last in parts[:-1]]
        self.start, self.words = self.start + parts[-1][0], words
