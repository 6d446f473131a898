"""``chunking_settings``: Elasticsearch's strategies, bounds and messages.

Sizes are in words as ICU counts them, not in tokens. Rules and defaults as in Elasticsearch's inference API
(``max_chunk_size`` has no upper bound since 9.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.config.endpoints.fields import bounds_fault, is_integer, missing, wrong_type
from penstock.config.endpoints.masking import Mask
from penstock.config.errors import EndpointInvalid
from penstock.config.java_regex import PatternUnusable, compile_java

SCOPE = "chunking_settings"
DEFAULT: dict[str, Any] = {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}
GROUPS = ("markdown", "plaintext")
MINIMUM = {"word": 10, "sentence": 20, "recursive": 10}
ALLOWED = {
    "word": ("strategy", "max_chunk_size", "overlap"),
    "sentence": ("strategy", "max_chunk_size", "sentence_overlap"),
    "recursive": ("strategy", "max_chunk_size", "separators", "separator_group"),
    "none": ("strategy",),
}
_NAMES = {"word": "Word based", "sentence": "Sentence based", "recursive": "Recursive"}


def validate_chunking(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings with defaults filled in, names in lower case.

    Args:
        settings: as the user gave them; None or empty is the default, sentences of 250 words with an overlap of 1.

    Raises:
        EndpointInvalid: with every fault.
    """
    kept, faults = check_chunking(settings)
    if faults:
        raise EndpointInvalid(faults)
    return kept


def check_chunking(settings: Any, mask: Mask | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return the settings and every fault; the settings mean nothing when there are faults."""
    mask = mask or Mask()
    if settings is None:
        return dict(DEFAULT), []
    if not isinstance(settings, Mapping):
        return {}, [wrong_type(SCOPE, settings, "Map", mask)]
    given = {str(name): value for name, value in settings.items() if value is not None}
    if not given:
        return dict(DEFAULT), []
    strategy, fault = _strategy(given, mask)
    if fault is not None:
        return {}, [fault]
    faults = _unknown(strategy, given, mask)
    kept = {"strategy": strategy}
    if strategy != "none":
        kept |= _CHECKS[strategy](given, faults, mask)
    return kept, faults


def _strategy(given: Mapping[str, Any], mask: Mask) -> tuple[str, str | None]:
    value = given.get("strategy")
    if value is None:
        return "", "Can't generate Chunker without ChunkingStrategy provided"
    if not isinstance(value, str):
        return "", wrong_type("strategy", value, "String", mask)
    strategy = value.strip().lower()
    if strategy not in ALLOWED:
        return "", _not_one_of("strategy", value, sorted(ALLOWED), mask)
    return strategy, None


def _not_one_of(name: str, value: str, choices: Sequence[str], mask: Mask) -> str:
    return (
        f"[{SCOPE}] Invalid value [{mask.show(value)}] received. [{name}] must be one of [{', '.join(sorted(choices))}]"
    )


def _unknown(strategy: str, given: Mapping[str, Any], mask: Mask) -> list[str]:
    names = ", ".join(mask.name(name) for name in given if name not in ALLOWED[strategy])
    if not names:
        return []
    if strategy == "none":
        return [f"When chunking is disabled (none), settings can not have the following: [{names}]"]
    return [f"{_NAMES[strategy]} chunking settings can not have the following settings: [{names}]"]


def _positive(name: str, given: Mapping[str, Any], faults: list[str], mask: Mask) -> int | None:
    """Return a required positive integer; None after adding its fault."""
    value = given.get(name)
    if value is None:
        faults.append(missing(name, SCOPE))
    elif not is_integer(value):
        faults.append(wrong_type(name, value, "Integer", mask))
    elif value < 1:
        faults.append(f"[{SCOPE}] Invalid value [{value}]. [{name}] must be a positive integer")
    else:
        return int(value)
    return None


def _size(strategy: str, given: Mapping[str, Any], faults: list[str], mask: Mask) -> int | None:
    value = _positive("max_chunk_size", given, faults, mask)
    if value is not None and (fault := bounds_fault("max_chunk_size", value, SCOPE, MINIMUM[strategy], None)):
        faults.append(fault)
        return None
    return value


def _word(given: Mapping[str, Any], faults: list[str], mask: Mask) -> dict[str, Any]:
    size = _size("word", given, faults, mask)
    overlap = _positive("overlap", given, faults, mask)
    if size is not None and overlap is not None:
        fault = bounds_fault("overlap", overlap, SCOPE, None, size // 2)
        faults.extend([fault] if fault else [])
    return {"max_chunk_size": size, "overlap": overlap}


def _sentence(given: Mapping[str, Any], faults: list[str], mask: Mask) -> dict[str, Any]:
    size = _size("sentence", given, faults, mask)
    overlap = given.get("sentence_overlap", 1)
    if not is_integer(overlap):
        faults.append(wrong_type("sentence_overlap", overlap, "Integer", mask))
    elif overlap not in (0, 1):
        faults.append(f"sentence_overlap[{overlap}] must be either 0 or 1")
    return {"max_chunk_size": size, "sentence_overlap": overlap}


def _recursive(given: Mapping[str, Any], faults: list[str], mask: Mask) -> dict[str, Any]:
    kept: dict[str, Any] = {"max_chunk_size": _size("recursive", given, faults, mask)}
    separators, group = given.get("separators"), given.get("separator_group")
    if separators is not None and group is not None:
        faults.append("Recursive chunking settings can not have both separators and separator_set")
    if separators is not None:
        faults.extend(_separator_faults(separators, mask))
        return kept | {"separators": list(separators) if isinstance(separators, list) else []}
    if group is None:
        group = "plaintext"
    elif not isinstance(group, str):
        faults.append(wrong_type("separator_group", group, "String", mask))
    elif group.strip().lower() not in GROUPS:
        faults.append(_not_one_of("separator_group", group, GROUPS, mask))
    return kept | {"separator_group": str(group).strip().lower()}


def _separator_faults(separators: Any, mask: Mask) -> list[str]:
    if not isinstance(separators, list) or not all(isinstance(each, str) for each in separators):
        return [wrong_type("separators", separators, "List", mask)]
    if not separators:
        return ["Recursive chunking settings can not have an empty list of separators"]
    return [fault for each in separators if (fault := _pattern_fault(each, mask)) is not None]


def _pattern_fault(pattern: str, mask: Mask) -> str | None:
    """Separators are Java's regular expressions: one that cannot be used would fail at the first document."""
    try:
        compile_java(pattern)
    except PatternUnusable as exc:
        return f"[{SCOPE}] Invalid value [{mask.show(pattern)}]. [separators] must be regular expressions: {exc}"
    return None if pattern else f"[{SCOPE}] Invalid value empty string. [separators] must be non-empty strings"


_CHECKS = {"word": _word, "sentence": _sentence, "recursive": _recursive}
