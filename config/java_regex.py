r"""Java's regular expressions as Python's, so that an endpoint's separators mean what they mean in Elasticsearch.

Separators are patterns of ``java.util.regex`` compiled with ``MULTILINE``. Most of the two languages is one; what
differs is respelt here: line terminators (``.``, ``^``, ``$``, ``\R``, ``\Z``, ``\z``), classes (``\h``, ``\v``,
``\p{...}``), ASCII-only ``\w \d \s \b`` and case, named groups, quoting, numeric escapes, flags. What Python cannot
do, and what Java would refuse, is an error that names the separator.

Source: the documentation of ``java.util.regex.Pattern``, Java 21.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from penstock.config.java_properties import members

_TERMINATORS: Final = r"\n\r\x85\u2028\u2029"
_DOT: Final = f"[^{_TERMINATORS}]"
_ANY: Final = r"[\s\S]"
# With MULTILINE, but never at the end of the text (Java's rule), nor inside \r\n.
_LINE_START: Final = r"(?:(?:\A|(?<=[\n\x85\u2028\u2029])|(?<=\r)(?!\n))(?!\Z))"
_LINE_END: Final = r"(?:\Z|(?=[\r\x85\u2028\u2029])|(?<!\r)(?=\n))"
_LAST_LINE_END: Final = r"(?:\Z|(?=\r\n\Z)|(?=[\r\x85\u2028\u2029]\Z)|(?<!\r)(?=\n\Z))"
_HORIZONTAL: Final = r" \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000"
_VERTICAL: Final = r"\n\x0b\f\r\x85\u2028\u2029"

_SPELT: Final = {"A": r"\A", "b": r"\b", "B": r"\B", "z": r"\Z", "Z": _LAST_LINE_END, "R": rf"(?:\r\n|[{_VERTICAL}])"}
_SETS: Final = {"d": r"\d", "D": r"\D", "s": r"\s", "S": r"\S", "w": r"\w", "W": r"\W"}
_RANGES: Final = {"h": _HORIZONTAL, "v": _VERTICAL}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_QUANTIFIER: Final = re.compile(r"\{\d+(?:,\d*)?\}")
_GROUP: Final = re.compile(r"\?(?::|=|!|>|<=|<!|<([a-zA-Z][a-zA-Z0-9]*)>)")
_FLAGS: Final = re.compile(r"\?([a-zA-Z]*)(?:-([a-zA-Z]*))?([:)])")
_CODE: Final = re.compile(r"x([0-9a-fA-F]{2})|x\{([0-9a-fA-F]+)\}|u([0-9a-fA-F]{4})|0([0-3]?[0-7]{1,2})")


@lru_cache(maxsize=256)
def compile_java(separator: str) -> re.Pattern[str]:
    """Return the Python pattern that matches what Java's ``Pattern.compile(separator, MULTILINE)`` matches.

    Raises:
        PatternUnusable: the pattern is wrong, or means something that Python's ``re`` cannot say.
    """
    try:
        return re.compile(_Translation(separator).run(), re.ASCII)
    except re.error as exc:
        raise PatternUnusable(exc.msg) from exc
    except (OverflowError, RecursionError) as exc:
        raise PatternUnusable("too complex") from exc


class PatternUnusable(ValueError):
    """A pattern that cannot be respelt; the message says why, and does not repeat the pattern."""


@dataclass
class _Scope:
    """The flags inside one group."""

    multiline: bool = True
    dot_all: bool = False


class _Translation:
    """One pass over a pattern; ``_at`` is the next character to read."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._scopes = [_Scope()]
        self._groups = 0
        self._closing = ""

    def run(self) -> str:
        """Return the whole pattern in Python's spelling."""
        parts = []
        while self._at < len(self._pattern):
            parts.append(self._next())
        return "".join(parts) + self._closing

    def _next(self) -> str:
        char = self._take()
        match char:
            case "\\":
                return self._escape()
            case "[":
                return self._class()
            case "(":
                return self._group()
            case ")":
                if len(self._scopes) > 1:  # an unbalanced one is for re to refuse
                    self._scopes.pop()
                return char
            case "{":
                return self._repeat()
            case ".":
                return _ANY if self._scopes[-1].dot_all else _DOT
            case "^":
                return _LINE_START if self._scopes[-1].multiline else r"\A"
            case "$":
                return _LINE_END if self._scopes[-1].multiline else _LAST_LINE_END
        return char

    def _take(self) -> str:
        if self._at >= len(self._pattern):
            raise PatternUnusable("it ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def _rest(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._pattern, self._at)
        if found:
            self._at = found.end()
        return found

    def _repeat(self) -> str:
        self._at -= 1
        found = self._rest(_QUANTIFIER)
        if not found:
            raise PatternUnusable(r"a { that begins no repetition must be written \{")
        return found[0]

    def _group(self) -> str:
        if not self._pattern.startswith("?", self._at):
            self._groups += 1
            self._open()
            return "("
        if found := self._rest(_GROUP):
            self._open()
            if not found[1]:
                return "(" + found[0]
            self._groups += 1
            return f"(?P<{found[1]}>"
        return self._flags()

    def _open(self) -> None:
        self._scopes.append(_Scope(**vars(self._scopes[-1])))

    def _flags(self) -> str:
        first = self._at == 1
        found = self._rest(_FLAGS)
        if not found:
            raise PatternUnusable("a group begins with (? and no construct of Java follows")
        on, off, end = found[1], found[2] or "", found[3]
        if unknown := set(on + off) - set("ims"):
            raise PatternUnusable(f"the flag {sorted(unknown)[0]} is not supported")
        if end == ":":
            self._open()
        scope = self._scopes[-1]
        scope.multiline = "m" in on or (scope.multiline and "m" not in off)
        scope.dot_all = "s" in on or (scope.dot_all and "s" not in off)
        cased = "(?i:" if "i" in on else "(?-i:" if "i" in off else ""
        if end == ":":
            return cased or "(?:"
        if cased and not first:
            raise PatternUnusable("(?i) must stand at the beginning, or be written (?i:...)")
        self._closing = ")" if cased else ""
        return cased

    def _escape(self) -> str:
        char = self._take()
        if char in _SPELT:
            return _SPELT[char]
        if char == "k":
            name = self._until("<", ">")
            return f"(?P={name})"
        if char in "123456789":
            return self._back_reference(int(char))
        inside = self._set(char)
        if inside is not None:
            return f"[{inside}]"
        return re.escape(self._literal(char))

    def _back_reference(self, number: int) -> str:
        while self._at < len(self._pattern) and self._pattern[self._at] in "0123456789":
            longer = number * 10 + int(self._pattern[self._at])
            if longer > self._groups:
                break
            number, self._at = longer, self._at + 1
        return f"(?:\\{number})"

    def _set(self, char: str) -> str | None:
        """Return the inside of a class for an escape that stands for several characters, else None."""
        if char in _SETS:
            return _SETS[char]
        if char.lower() in _RANGES:
            return _RANGES[char] if char.islower() else _complement(_RANGES[char.lower()])
        if char in "pP":
            name = self._until("{", "}") if self._pattern.startswith("{", self._at) else self._take()
            inside = members(name)
            if inside is None:
                raise PatternUnusable(f"the property {name} is not known here")
            return inside if char == "p" else _complement(inside)
        return None

    def _literal(self, char: str) -> str:
        """Return the character, or the quoted text, that an escape stands for."""
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "c":
            return chr(ord(self._take()) ^ 64)
        if char == "Q":
            end = self._pattern.find("\\E", self._at)
            quoted = self._pattern[self._at : end if end >= 0 else None]
            self._at = end + 2 if end >= 0 else len(self._pattern)
            return quoted
        if char == "N":
            return self._named()
        self._at -= 1
        if found := self._rest(_CODE):
            return self._code(found)
        self._at += 1
        if char.isascii() and char.isalnum():
            raise PatternUnusable(f"\\{char} is not supported")
        return char

    def _code(self, found: re.Match[str]) -> str:
        if found[4]:
            return chr(int(found[4], 8))
        code = int(found[1] or found[2] or found[3], 16)
        if code > 0x10FFFF:
            raise PatternUnusable(f"there is no character {code:x}")
        trail = re.compile(r"\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
        if 0xD800 <= code < 0xDC00 and (low := self._rest(trail)):
            code = 0x10000 + ((code & 0x3FF) << 10) + (int(low[1], 16) & 0x3FF)
        return chr(code)

    def _named(self) -> str:
        name = self._until("{", "}")
        try:
            return unicodedata.lookup(name)
        except KeyError:
            raise PatternUnusable(f"there is no character named {name}") from None

    def _until(self, first: str, last: str) -> str:
        end = self._pattern.find(last, self._at)
        if not self._pattern.startswith(first, self._at) or end < 0:
            raise PatternUnusable(f"{first}...{last} is missing after an escape")
        name, self._at = self._pattern[self._at + 1 : end], end + 1
        return name

    def _class(self) -> str:
        """Respell a character class; Java's unions, intersections and subtractions have no counterpart."""
        parts = ["[^" if self._pattern.startswith("^", self._at) else "["]
        self._at += len(parts[0]) - 1
        while (char := self._take()) != "]" or len(parts) == 1:
            if char == "[" or (char == "&" and self._pattern.startswith("&", self._at)):
                raise PatternUnusable("a class inside a class, and && in one, are not supported")
            if char == "-" and len(parts) > 1 and not self._pattern.startswith("]", self._at):
                parts.append("-")
            elif char == "\\":
                escaped = self._take()
                inside = self._set(escaped)
                parts.append(re.escape(self._literal(escaped)) if inside is None else inside)
            else:
                parts.append(re.escape(char))
        return "".join(parts) + "]"


def _complement(inside: str) -> str:
    """Return the inside of a class with every character that ``inside`` lacks."""
    pattern, spans, start = re.compile(f"[{inside}]"), [], 0
    for code in range(0x110001):
        if code == 0x110000 or pattern.match(chr(code)):
            if start < code:
                spans.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = code + 1
    return "".join(spans)
