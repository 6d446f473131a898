"""The separators of the ``recursive`` strategy: Java regular expressions, in groups as Elasticsearch has them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import regex

from penstock.config.java_regex import TERMINATORS, PatternUnusable, compile_java
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


BUDGET_S, BUDGET_S_A_MILLION = 5.0, 5.0
"""Seconds of processor time that all separators together may take of a text, and beside them for a million characters.
Those of ``markdown`` take 0.05 s for a million."""


class PatternBudget:
    """What is left of the time that a text's separators may take.

    Args:
        length: of the text, in characters.
    """

    def __init__(self, length: int) -> None:
        self.seconds = BUDGET_S + BUDGET_S_A_MILLION * length / 1e6


def compile_separators(separators: Sequence[str], text: str = TERMINATORS) -> list[regex.Pattern[str]]:
    """Return the patterns to search for in ``text``.

    Raises:
        ChunkingInvalid: one is no Java regular expression, or not supported; the message names it.
    """
    line_feeds_only = not any(char in text for char in TERMINATORS)
    patterns = []
    for separator in separators:
        try:
            patterns.append(compile_java(separator, line_feeds_only))
        except PatternUnusable as exc:
            raise ChunkingInvalid(
                f"separator [{separator}] cannot be used: {exc}; write it as a simpler Java regular expression"
            ) from exc
    return patterns


def match_starts(pattern: regex.Pattern[str], text: str, budget: PatternBudget | None = None) -> Iterator[int]:
    """Yield where matches begin, as Java's ``Matcher.find`` goes on: after an empty match, one character further.

    Raises:
        TimeoutError: the budget is used up.
    """
    budget = budget or PatternBudget(len(text))
    began, at = time.thread_time(), 0
    try:
        while at <= len(text):
            left = budget.seconds - (time.thread_time() - began)
            if left <= 0:
                raise TimeoutError
            try:
                for match in pattern.finditer(text, at, timeout=left):
                    yield match.start()
                    at = match.end()
                    if at == match.start():
                        # Python would try once more here, for a match that is not empty.
                        at += 1
                        break
                else:
                    return
            except TimeoutError:
                continue  # by the wall clock: this thread may have been held up, and goes on with what it has left
    finally:
        budget.seconds -= time.thread_time() - began
