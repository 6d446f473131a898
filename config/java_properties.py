r"""Java's ``\p{...}`` properties as character classes of Python's ``re``.

The POSIX classes and general categories of ``java.util.regex.Pattern``'s documentation; scripts, blocks and Java's own
``java*`` classes are not known here. Categories are those of this Python's ``unicodedata``.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

_POSIX: Final = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": r"!-/:-@\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
    "Space": r" \t\n\x0b\f\r",
}
_BINARY: Final = {"IsLetter": "L", "IsDigit": "Nd", "IsPunctuation": "P", "IsControl": "Cc"}
_PREFIXES: Final = ("general_category=", "gc=", "Is")


def members(name: str) -> str | None:
    """Return the inside of a character class that holds the property's characters, or None for an unknown one."""
    if name in _POSIX:
        return _POSIX[name]
    category = _BINARY.get(name) or next((name[len(p) :] for p in _PREFIXES if name.startswith(p)), name)
    return _category(category) if category in _categories() else None


@cache
def _categories() -> frozenset[str]:
    exact = {unicodedata.category(chr(code)) for code in range(0x30000)} | {"Co"}
    return frozenset(exact | {category[0] for category in exact})


@cache
def _category(category: str) -> str:
    spans: list[list[int]] = []
    for code in range(0x110000):
        if unicodedata.category(chr(code)).startswith(category):
            if spans and spans[-1][1] == code - 1:
                spans[-1][1] = code
            else:
                spans.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in spans)
