"""Words: things are called what those who know Celery and HTTP call them, and two classes never share a name.

The words that were ours alone have the field's in their place. Names are looked at in the syntax tree; in prose, where
most of the words are plain English too, only those that can mean nothing else.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cli", "config", "stand_in", "tasks", "workers")

#: Words of ours, and what the field says.
INSTEAD = {
    "coach": "coalescer", "rider": "pending call", "trip": "flush", "fate": "outcome kind", "ticket": "permit",
    "leave": "permit", "settlement": "usage report", "conversation": "caller", "tries": "retry state",
    "crew": "process group", "member": "worker process", "surroundings": "run context", "ended": "run result",
    "wishes": "image options", "echo": "duplicate", "owed": "unresolved", "piece": "output row", "bad": "invalid row",
    "bury": "add dead letters", "whereabouts": "pending messages", "post": "publisher",
    "hopeless": "certainly too long, or crash-looping", "nudge": "wake", "pump": "deliver available",
    "desk": "task client", "stage": "environment", "mend": "fix", "told": "configured", "sealed": "encrypted",
    "news": "signals", "say": "run",
}  # fmt: skip

#: Names that hold such a word and mean something else by it.
ALLOWED = {
    "__post_init__": "dataclasses' own name",
    "post_config": "the handler of an HTTP POST",
    "MESSAGES_A_ROUND_TRIP": "a round trip is the field's word",
    "RESULTS_A_ROUND_TRIP": "a round trip is the field's word",
    "members": "of a class of characters, in regular expressions",
    "conversations": "Azure's 'on your data' answers hold conversations of messages",
}

#: A line of text is what everybody calls a line; a line of those who wait is a fair queue.
QUEUES = frozenset({"Line", "line", "_line"})

#: Words that can be nothing else, with their inflections.
UNMISTAKABLE = re.compile(
    r"\b(coach(es)?|riders?|crews?|bur(y|ies|ied)|whereabouts|pump(s|ed|ing)?|nudg(e|es|ed|ing)|hopeless(ly)?|fates?"
    r"|mend(s|ed|ing)?)\b",
    re.IGNORECASE,
)


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def documents() -> list[Path]:
    return [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "CHANGELOG.md"))]


def parts(name: str) -> set[str]:
    """Return the words of a name, in lower case: ``RetryState`` and ``retry_state`` have the same two."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {part.lower() for part in found}


def refused(name: str) -> set[str]:
    """Return the words of a name that are ours, in the singular or the plural."""
    if name in ALLOWED:
        return set()
    words = parts(name)
    return {word for word in INSTEAD if words & {word, f"{word}s", f"{word}es"}}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every class, function, argument, variable and attribute that a module gives a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def fields(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every class, and of every field that a class declares or a method sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
            yield from (
                (each.lineno, each.target.id)
                for each in node.body
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            )
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


@pytest.mark.parametrize("name", ["Ticket", "leave_to_send", "_ECHOES", "RiderState", "told", "SETTLEMENTS", "posts"])
def test_a_name_with_a_word_of_ours_is_found(name: str) -> None:
    assert refused(name)


@pytest.mark.parametrize("name", ["remember", "posted", "blended", "recommend", "__post_init__", "newsletter", "badge"])
def test_a_word_inside_another_is_none(name: str) -> None:
    assert not refused(name)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_bears_or_gives_a_name_of_ours(path: Path) -> None:
    place = path.relative_to(ROOT)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    given = [(1, part) for part in place.with_suffix("").parts] + list(names(tree))
    found = [f"{place}:{line}: {name}: {INSTEAD[word]}?" for line, name in given for word in refused(name)]
    assert found == []
    assert [f"{place}:{line}: {name}: fair queue?" for line, name in fields(tree) if name in QUEUES] == []


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", [*modules(), *documents()], ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_has_none_of_the_words_that_can_be_nothing_else(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"{number}: {line.strip()}" for number, line in enumerate(lines, 1) if UNMISTAKABLE.search(line)]
    assert found == []
