"""Chunking: a text to the character offsets of its chunks, equal to Elasticsearch's.

Pure: no I/O, no randomness; the same text gives the same chunks on every platform. A clock only limits what users'
separators may take. Offsets count Python characters (code points), so ``text[start:end]`` is the chunk. Words and
sentences are ICU's with the root locale.
"""

from __future__ import annotations

from penstock.tasks.chunking.boundaries.word_count import count_words
from penstock.tasks.chunking.dispatch import chunk_text, try_chunks
from penstock.tasks.chunking.parameters import ChunkingInvalid, PatternTooSlow
from penstock.tasks.chunking.recursive import recursive_chunks
from penstock.tasks.chunking.sentence import sentence_chunks
from penstock.tasks.chunking.separators import SEPARATOR_GROUPS
from penstock.tasks.chunking.word import word_chunks

__all__ = [
    "SEPARATOR_GROUPS",
    "ChunkingInvalid",
    "PatternTooSlow",
    "chunk_text",
    "count_words",
    "recursive_chunks",
    "sentence_chunks",
    "try_chunks",
    "word_chunks",
]
