"""What the chunkers refuse: the preconditions that hold whatever an endpoint's bounds are.

The bounds of an endpoint (``max_chunk_size`` at least 10 or 20, and so on) are its validation's business.
"""

from __future__ import annotations

from penstock.config.errors import InputInvalid


class ChunkingInvalid(InputInvalid, ValueError):
    """A chunker's arguments cannot work together, or a separator cannot be used."""

    code = "chunking_invalid"


class PatternTooSlow(ChunkingInvalid):
    """A separator takes too long on this text: nested repetition such as ``(a+)+`` does so on what it hardly misses."""

    code = "pattern_too_slow"


def no_text(given: object) -> InputInvalid:
    """Return the error for what was given in place of a text."""
    return InputInvalid(f"text must be a string, not {type(given).__name__}: chunk one text per call")


def check_size(max_chunk_size: int) -> None:
    """Raise ``ChunkingInvalid`` unless a chunk may hold at least one word."""
    if max_chunk_size < 1:
        raise ChunkingInvalid(f"Invalid chunking parameters, max_chunk_size [{max_chunk_size}] must be >= 1 word")


def check_overlap(max_chunk_size: int, overlap: int) -> None:
    """Raise ``ChunkingInvalid`` unless 0 <= overlap <= max_chunk_size / 2, with Elasticsearch's messages."""
    if overlap < 0:
        raise ChunkingInvalid(f"Invalid chunking parameters, overlap [{overlap}] must be >= 0")
    half = max_chunk_size // 2
    if overlap > half:
        raise ChunkingInvalid(
            f"Invalid chunking parameters, overlap [{overlap}] must be < chunk size / 2 [{max_chunk_size} / 2 = {half}]"
        )
