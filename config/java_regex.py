r"""Java's regular expressions in the language of ``regex``, so that separators mean what they mean in Elasticsearch.

Separators are patterns of ``java.util.regex`` compiled with ``MULTILINE``. Most of the two languages is one and passes
through; the table of tokens names what differs: line terminators (``.``, ``^``, ``$``, ``\R``, ``\Z``, ``\z``), ``\h``,
``\p{...}``, ASCII-only ``\w \d \s \b`` and case, quoting, numeric escapes, flags. What Java would refuse, and what is
not supported, is an error that says why.

Source: the documentation of ``java.util.regex.Pattern``, Java 21.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

import regex

from penstock.config.java_properties import property_set

TERMINATORS: Final = "\r\x85\u2028\u2029"
"""What ends a line in Java beside the line feed."""


class _Lines(NamedTuple):
    r"""How ``^``, ``$`` and ``.`` are spelt. Java's ``^`` is never at the end of the text, nor inside ``\r\n``."""

    start: str
    end: str
    dot: str


_JAVA: Final = _Lines(
    r"(?:(?<![^\n\r\x85\u2028\u2029])(?!(?<=\r)\n|\Z))",
    r"(?:(?![^\n\r\x85\u2028\u2029])(?!(?<=\r)\n))",
    r"[^\n\r\x85\u2028\u2029]",
)
_LINE_FEEDS: Final = _Lines(r"(?:(?m:^)(?!\Z))", "(?m:$)", ".")
_LAST_LINE_END: Final = r"(?:\Z|(?=\r\n\Z)|(?=[\r\x85\u2028\u2029]\Z)|(?<!\r)(?=\n\Z))"

_WORD: Final = "[0-9A-Z_a-z]"
_ESCAPES: Final = {
    "A": r"\A",
    "b": rf"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    "B": rf"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
    "X": r"\X",
    "z": r"\Z",
    "Z": _LAST_LINE_END,
    "R": r"(?:\r\n|[\n-\r\x85\u2028\u2029])",
}
_SETS: Final = {
    "d": "[0-9]",
    "s": r"[ \t\n-\r]",
    "w": _WORD,
    "h": r"[ \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000]",
    "v": r"[\n-\r\x85\u2028\u2029]",
}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_BRACKETS: Final = {"p": "{...}", "P": "{...}", "N": "{...}", "k": "<...>"}

_ANYWHERE: Final = r"""
      \\Q (?<quoted> .*?) (?: \\E | \Z)
    | \\(?<property> [pP] (?: \{[^}]*\} | [^{]))
    | \\u (?<pair> [dD][89abAB]\p{XDigit}{2} \\u [dD][c-fC-F]\p{XDigit}{2})
    | \\ (?: x (?<code> \p{XDigit}{2}) | x \{ (?<code> \p{XDigit}+) \} | u (?<code> \p{XDigit}{4}))
    | \\0 (?<octal> [0-3]?[0-7]{1,2})
    | \\c (?<control> .)
    | \\N \{ (?<named> [^}]*) \}
    | (?<opening> \[\^?)"""
_IN_CLASS: Final = regex.compile(
    rf"{_ANYWHERE} | \\(?<escape> .) | (?<closing> \]) | (?<both> &&) | (?<character> .)", regex.V1 | regex.X | regex.S
)
_OUTSIDE: Final = regex.compile(
    rf"""{_ANYWHERE}
    | \\k < (?<again> \w+) >
    | \\ (?<number> [1-9]\d*)
    | \\ (?<escape> .)
    | \( (?<group> \? (?: [:=!>] | < (?: [=!] | (?<name> [a-zA-Z][a-zA-Z0-9]*) >)) | (?! \?))
    | \(\? (?<flags> [a-zA-Z]* (?: - [a-zA-Z]*)? [:\)])
    | (?<same> \{{ \d+ (?: ,\d* )? \}} | [|*+?])
    | (?<character> .)""",
    regex.V1 | regex.X | regex.S | regex.A,
)


class PatternUnusable(ValueError):
    """A pattern that cannot be respelt; the message says why, and does not repeat the pattern."""


@lru_cache(maxsize=512)
def compile_java(separator: str, line_feeds_only: bool = False) -> regex.Pattern[str]:
    """Return the pattern that matches what Java's ``Pattern.compile(separator, MULTILINE)`` matches.

    Args:
        separator: in Java's language.
        line_feeds_only: for texts without any of ``TERMINATORS``: the same matches, found some three times as fast.

    Raises:
        PatternUnusable: the pattern is wrong, or means something that is not supported here.
    """
    translation = _Translation(separator, _LINE_FEEDS if line_feeds_only else _JAVA)
    try:
        return regex.compile(translation.run(), regex.V1)
    except regex.error as exc:
        raise PatternUnusable(str(exc).partition(" at position ")[0]) from exc  # a position in what it was made of
    except (OverflowError, RecursionError, MemoryError) as exc:
        raise PatternUnusable("too complex") from exc


@dataclass(frozen=True)
class _Flags:
    """The flags inside one group."""

    i: bool = False
    m: bool = True
    s: bool = False


class _Translation:
    """One pass over a pattern, token by token. ``_at`` is where the next one begins."""

    def __init__(self, pattern: str, lines: _Lines) -> None:
        self._pattern, self._lines = pattern, lines
        self._at = 0
        self._parts: list[str] = []
        self._scopes = [_Flags()]
        self._groups: list[str | None] = []
        self._classes: list[int] = []  # where in the parts the open ones begin
        self._last = self._begun = ""  # in a class: a character that may begin a range, one that has begun a range

    def run(self) -> str:
        """Return the whole pattern in the language of ``regex``."""
        while self._at < len(self._pattern):
            token = (_IN_CLASS if self._classes else _OUTSIDE).match(self._pattern, self._at)
            if token is None or token.lastgroup is None or token[0] == "\\":
                raise PatternUnusable("it ends too early")
            self._at = token.end()
            self._parts.append(self._spelt(token.lastgroup, token))
        if self._classes:
            raise PatternUnusable("it ends too early")
        return "".join(self._parts)

    def _spelt(self, kind: str, token: regex.Match[str]) -> str:
        text = token[kind]
        match kind:
            case "property":
                return self._property(text[0], text[1:].strip("{}"))
            case "escape":
                return self._escape(text)
            case "opening" | "closing" | "both":
                return self._class(kind, text)
            case "group" | "flags":
                return self._group(token["name"], text) if kind == "group" else self._set_flags(text)
            case "again":
                return f"(?P={text})" if not self._scopes[-1].i else f"(?i:(?P={text}))"
            case "number":
                return self._back_reference(text)
            case "same":
                return text
            case "character":
                return self._in_class(text) if self._classes else self._outside(text)
        return self._literal(_decoded(kind, text))

    def _outside(self, char: str) -> str:
        flags = self._scopes[-1]
        match char:
            case ".":
                return "(?s:.)" if flags.s else self._lines.dot
            case "^":
                return self._lines.start if flags.m else r"\A"
            case "$":
                return self._lines.end if flags.m else _LAST_LINE_END
            case "(":
                raise PatternUnusable("a group begins with (? and no construct of Java follows")
            case "{":
                raise PatternUnusable(r"a { that begins no repetition must be written \{")
            case ")":
                if len(self._scopes) > 1:  # an unbalanced one is for regex to refuse
                    self._scopes.pop()
                return char
        return self._literal(char)

    def _escape(self, char: str) -> str:
        if char in _ESCAPES and not self._classes:
            return _ESCAPES[char]
        if char.lower() in _SETS:
            return self._set(_SETS[char.lower()], negated=char.isupper())
        if char in _BRACKETS:
            raise PatternUnusable(f"{_BRACKETS[char]} is missing after an escape")
        if char not in _CONTROLS and char.isascii() and char.isalnum():
            raise PatternUnusable(f"\\{char} is not supported")
        return self._literal(_CONTROLS.get(char, char))

    def _literal(self, text: str) -> str:
        return "".join(map(self._one, text))

    def _one(self, char: str) -> str:
        """Return a character, with the flag i in both cases: ASCII's letters alone have two in Java."""
        ignore_case, begun = self._scopes[-1].i, self._begun
        self._begun, self._last = "", "" if begun else char
        cases = char.swapcase() + char if ignore_case and char.isascii() and char.isalpha() else char
        if not self._classes:
            return regex.escape(cases) if len(cases) == 1 else f"[{cases}]"
        if not begun:
            return regex.escape(cases)
        return regex.escape(char) + (_other_cases(begun, char) if ignore_case else "")

    # Groups

    def _group(self, name: str | None, text: str) -> str:
        self._scopes.append(self._scopes[-1])
        if name and name in self._groups:
            raise PatternUnusable(f"two groups are named {name}")
        if name or not text:
            self._groups.append(name)
        return f"({text}"

    def _set_flags(self, text: str) -> str:
        on, _, off = text[:-1].partition("-")
        if unknown := set(on + off) - set("ims"):
            raise PatternUnusable(f"the flag {sorted(unknown)[0]} is not supported")
        flags = replace(self._scopes[-1], **(dict.fromkeys(on, True) | dict.fromkeys(off, False)))
        if text[-1] == ":":
            self._scopes.append(flags)
        else:
            self._scopes[-1] = flags
        return f"(?:{text[-1].strip(':')}"

    def _back_reference(self, number: str) -> str:
        """Java takes as many digits as there are groups for; what is left is text."""
        while len(number) > 1 and int(number) > len(self._groups):
            number, self._at = number[:-1], self._at - 1
        return rf"(?:\{number})" if not self._scopes[-1].i else rf"(?i:\{number})"

    # Sets and classes

    def _property(self, sign: str, name: str) -> str:
        found = property_set(name, self._scopes[-1].i)
        if found is None:
            raise PatternUnusable(f"the property {name} is not known here")
        return self._set(found, negated=sign == "P")

    def _set(self, inside: str, negated: bool = False) -> str:
        if self._begun:
            raise PatternUnusable("a range in a class ends in a set")
        self._last = ""
        return f"[^{inside}]" if negated else inside

    def _in_class(self, char: str) -> str:
        if char == "-" and self._last and self._pattern[self._at : self._at + 1] not in ("[", "]"):
            self._begun, self._last = self._last, ""
            return char
        return self._literal(char)

    def _class(self, kind: str, text: str) -> str:
        """Pass on a class: in Java as in ``regex``, && comes after everything else in it."""
        if kind == "opening":
            self._set("")
            self._classes.append(len(self._parts))
            return text
        empty = len(self._parts) == self._classes[-1] + 1
        if kind == "closing" and empty:
            return self._literal(text)  # one that comes first is a character
        if empty or self._parts[-1] == "&&":
            raise PatternUnusable("&& in a class joins two sets")
        self._last = ""
        if kind == "closing":
            self._classes.pop()
        return text


def _other_cases(first: str, last: str) -> str:
    """Return the letters of a range once more, in the other case."""
    spans = ((max(first, low), min(last, high)) for low, high in ("az", "AZ"))
    return "".join(f"{begin.swapcase()}-{end.swapcase()}" for begin, end in spans if begin <= end)


def _decoded(kind: str, text: str) -> str:
    """Return the character, or the quoted text, that an escape stands for."""
    if kind == "quoted":
        return text
    if kind == "control":
        return chr(ord(text) ^ 64)
    if kind == "pair":
        return bytes.fromhex(text[:4] + text[6:]).decode("utf-16-be")
    if kind == "named":
        try:
            return unicodedata.lookup(text)
        except KeyError:
            raise PatternUnusable(f"there is no character named {text}") from None
    code = int(text, 8 if kind == "octal" else 16)
    if code > 0x10FFFF:
        raise PatternUnusable(f"there is no character {code:x}")
    return chr(code)
