"""The demo's corpus: the docstrings of the running Python's standard library.

It is real prose, it is on every machine, and nothing is bundled or downloaded. The sources are parsed, not imported: no
code of theirs runs. Knows nothing of endpoints, workers or files of ours.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

# Programs and copies of others' code that live among the library's modules: their docstrings help nobody.
_LEFT_OUT = {
    "antigravity",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "this",
    "tkinter",
    "turtledemo",
}
_FEW = 500


@dataclass(frozen=True)
class Passage:
    """A name of the library (``zipfile.ZipFile.open``), and its signature and docstring."""

    id: str
    text: str


def standard_library(folder: Path | None = None) -> list[Passage]:
    """Return the documented public names of the standard library, some thousands, by module and place in it.

    Args:
        folder: where the sources are; the running Python's by default. Where few are there (a zipped or stripped
            library), what can be imported is asked instead.
    """
    found = list(_unique(_from_sources(folder or Path(sysconfig.get_paths()["stdlib"]))))
    if len(found) < _FEW:
        found = list(_unique([*found, *_from_imports(sorted(sys.stdlib_module_names))]))
    return found


def _unique(passages: Iterable[Passage]) -> Iterator[Passage]:
    # A name defined twice (per platform, or as a fallback) is one document: the first stands.
    seen: set[str] = set()
    for passage in passages:
        if passage.id not in seen:
            seen.add(passage.id)
            yield passage


def _from_sources(folder: Path) -> Iterator[Passage]:
    for path in sorted(folder.rglob("*.py")):
        module = _module_name(path.relative_to(folder))
        if module is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.11 says so of invalid escapes
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
        yield from _documented(tree, module)


def _module_name(relative: Path) -> str | None:
    """Return the dotted name of a public module's source, None for what is left out."""
    parts = [*relative.parts[:-1], *([] if relative.stem == "__init__" else [relative.stem])]
    if not parts or parts[0] in _LEFT_OUT or parts[0] not in sys.stdlib_module_names:
        return None
    if {"test", "tests"} & set(parts) or any(part.startswith("_") for part in parts):
        return None
    return ".".join(parts)


def _documented(node: ast.Module | ast.ClassDef, name: str) -> Iterator[Passage]:
    text = ast.get_docstring(node)
    if text and text.strip():
        yield Passage(name, f"{name}\n{text.strip()}")
    for child in _definitions(node.body):
        if child.name.startswith("_"):
            continue
        inner = f"{name}.{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from _documented(child, inner)
        elif (text := ast.get_docstring(child)) and text.strip():
            yield Passage(inner, f"{inner}({ast.unparse(child.args)})\n{text.strip()}")


def _definitions(body: Iterable[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield what a body defines, also under ``if`` and ``try``; nothing inside functions."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
        elif isinstance(statement, ast.If):
            yield from _definitions([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from _definitions([*statement.body, *handlers, *statement.orelse])


def _from_imports(names: Iterable[str]) -> list[Passage]:
    found: list[Passage] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old modules say so, some when looked at
        for name in names:
            if name in _LEFT_OUT or name.startswith("_"):
                continue
            try:
                found += _described(importlib.import_module(name), name)
            except (ImportError, OSError):  # another platform's, or stripped from this one
                continue
    return found


def _described(thing: ModuleType | type, name: str, within: str = "") -> Iterator[Passage]:
    if text := _docstring(thing):
        yield Passage(name, f"{name}\n{text}")
    for attribute, value in sorted(vars(thing).items()):
        if attribute.startswith("_"):
            continue
        if inspect.isclass(value) and value.__qualname__ == within + attribute:  # defined here, no alias
            yield from _described(value, f"{name}.{attribute}", f"{within}{attribute}.")
        elif inspect.isroutine(value) and (text := _docstring(value)):
            yield Passage(f"{name}.{attribute}", f"{name}.{attribute}{_signature(value)}\n{text}")


def _docstring(thing: object) -> str:
    text = getattr(thing, "__doc__", None)
    return inspect.cleandoc(text).strip() if isinstance(text, str) else ""


def _signature(value: object) -> str:
    try:
        return str(inspect.signature(value))  # type: ignore[arg-type]  # it says TypeError where it cannot
    except (TypeError, ValueError, AttributeError):  # AttributeError: a default that its module does not have
        return "(...)"
