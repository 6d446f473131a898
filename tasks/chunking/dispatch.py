"""From an endpoint's ``chunking_settings`` to the chunker that they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.config.endpoints.chunking import DEFAULT
from penstock.tasks.chunking.parameters import ChunkingInvalid, PatternTooSlow, no_text
from penstock.tasks.chunking.recursive import recursive_chunks
from penstock.tasks.chunking.sentence import sentence_chunks
from penstock.tasks.chunking.separators import SEPARATOR_GROUPS
from penstock.tasks.chunking.word import word_chunks

STRATEGIES = ("sentence", "word", "recursive", "none")


def try_chunks(text: str, chunking_settings: Mapping[str, Any]) -> list[tuple[int, int]] | PatternTooSlow:
    """As ``chunk_text``; what is the text's own trouble is returned, so that others go on."""
    try:
        return chunk_text(text, chunking_settings)
    except PatternTooSlow as exc:
        return exc


def chunk_text(text: str, chunking_settings: Mapping[str, Any] | None = None) -> list[tuple[int, int]]:
    """Split a text by an endpoint's chunking settings.

    Args:
        text: any text.
        chunking_settings: validated settings (``strategy`` and what belongs to it); None or empty for the default,
            sentences up to 250 words with one sentence of overlap. Bounds on sizes are not checked here.

    Returns:
        ``(start, end)`` of each chunk in characters, in order; at least one.

    Raises:
        ChunkingInvalid: a setting is missing or cannot be used; the message names it.
        InputInvalid: the text is no string.
    """
    if not isinstance(text, str):
        raise no_text(text)
    settings = chunking_settings or DEFAULT
    strategy = str(_required(settings, "strategy")).strip().lower()
    if strategy == "none":
        return [(0, len(text))]
    if strategy not in STRATEGIES:
        raise ChunkingInvalid(f"[chunking_settings] Invalid value [{strategy}]. [strategy] must be one of {_LISTED}")
    size = _required(settings, "max_chunk_size")
    if strategy == "sentence":
        return sentence_chunks(text, size, settings.get("sentence_overlap", 1))
    if strategy == "word":
        return word_chunks(text, size, _required(settings, "overlap"))
    return recursive_chunks(text, size, _separators(settings))


_LISTED = "[" + ", ".join(STRATEGIES) + "]"


def _required(settings: Mapping[str, Any], name: str) -> Any:
    if settings.get(name) is None:
        raise ChunkingInvalid(f"[chunking_settings] does not contain the required setting [{name}]")
    return settings[name]


def _separators(settings: Mapping[str, Any]) -> tuple[str, ...]:
    if settings.get("separators"):
        return tuple(settings["separators"])
    group = str(settings.get("separator_group") or "plaintext").strip().lower()
    if group not in SEPARATOR_GROUPS:
        known = ", ".join(sorted(SEPARATOR_GROUPS))
        raise ChunkingInvalid(
            f"[chunking_settings] Invalid value [{group}] received. [separator_group] must be one of [{known}]"
        )
    return SEPARATOR_GROUPS[group]
