"""The separators of the ``recursive`` strategy: Java regular expressions, in groups as Elasticsearch has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from penstock.config.java_regex import PatternUnusable, compile_java
from penstock.tasks.chunking.parameters import ChunkingInvalid

SEPARATOR_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "plaintext": (r"(?<!\n)\n\n(?!\n)", r"(?<!\n)\n(?!\n)"),
        "markdown": (
            "\n# ",
            "\n## ",
            "\n### ",
            "\n#### ",
            "\n##### ",
            "\n###### ",
            "\n^(?!\\s*$).*\\n-{1,}\\n",
            "\n^(?!\\s*$).*\\n={1,}\\n",
        ),
    }
)
"""Separators by the group's name; the first is tried first."""


def compile_separators(separators: Sequence[str]) -> list[re.Pattern[str]]:
    """Return the patterns to search for.

    Raises:
        ChunkingInvalid: one is no Java regular expression, or Python's ``re`` cannot say it; the message names it.
    """
    patterns = []
    for separator in separators:
        try:
            patterns.append(compile_java(separator))
        except PatternUnusable as exc:
            raise ChunkingInvalid(
                f"separator [{separator}] cannot be used: {exc}; write it as a simpler Java regular expression"
            ) from exc
    return patterns
