"""Text for completions: made of the prompt's own words and a few of ours, the same for the same prompt. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.stand_in.faults import uniform

_SENTENCE = "the water turns a wheel and its gate lets through what it can take while more waits above"
_OURS = tuple(_SENTENCE.split())
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Generated:
    """One answer: its pieces, each of which counts as a token, and why it ended (``stop`` or ``length``)."""

    parts: tuple[str, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.parts)


def generate(prompt: str, choice: int, length: int, limit: int | None, stop: Sequence[str] = ()) -> Generated:
    """Answer ``prompt``.

    Args:
        prompt: what is asked.
        choice: answers of other numbers differ.
        length: of the answer, in words, if nothing ends it before.
        limit: ``max_tokens``, None for no limit.
        stop: the answer ends before the first of these.
    """
    seed = zlib.crc32(f"{choice}:{prompt}".encode("utf-8", "surrogatepass"))
    words = [*dict.fromkeys(_WORD.findall(prompt.lower()))][-12:] + list(_OURS)
    chosen = [words[int(uniform(seed, place) * len(words))] for place in range(length)]
    parts = [(" " if place else "") + word for place, word in enumerate(chosen)]
    parts[0] = parts[0].capitalize()
    parts[-1] += "."
    return trim(parts, limit, stop)


def trim(parts: Sequence[str], limit: int | None, stop: Sequence[str] = ()) -> Generated:
    """End a text where ``max_tokens`` or a stop sequence ends it, the earlier of the two."""
    reason = "stop"
    kept = list(parts)
    if limit is not None and len(kept) > limit:
        kept, reason = kept[:limit], "length"
    text = "".join(kept)
    ends = [place for place in (text.find(mark) for mark in stop if mark) if place >= 0]
    if not ends:
        return Generated(tuple(kept), reason)
    left, short = min(ends), []
    for part in kept:
        if left <= 0:
            break
        short.append(part[:left])
        left -= len(part)
    return Generated(tuple(short), "stop")


def split_text(text: str) -> list[str]:
    """Cut a text into pieces that count as tokens: a word with the space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def example_of(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """Return a small value that a JSON schema allows; of its keywords only the common ones are known."""
    root = schema if root is None else root
    reference = schema.get("$ref")
    if isinstance(reference, str) and depth < 20:
        target: Any = root
        for part in filter(None, reference.removeprefix("#").split("/")):
            target = target.get(part, {}) if isinstance(target, Mapping) else {}
        return example_of(target, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return example_of(schema[name][0], root, depth + 1)
    return _example_of_type(schema, root, depth)


def _example_of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        wanted = properties if depth < 5 else schema.get("required", ())
        return {name: example_of(properties.get(name, {}), root, depth + 1) for name in wanted}
    if kind == "array":
        count = max(int(schema.get("minItems", 1)), 0)
        return [example_of(schema.get("items", {}), root, depth + 1) for _ in range(count)]
    number = schema.get("minimum", 7)
    return {"integer": number, "number": number, "boolean": True, "null": None}.get(kind, "water")
