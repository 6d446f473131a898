r"""Java's ``\p{...}`` properties in the spelling of ``regex``: sets that stand alone or inside a class.

Categories, scripts, blocks and binary properties are those of ``regex``'s own Unicode data. What it does not know, or
means otherwise, is spelt out here: the POSIX classes, which are ASCII's in Java, and Java's own ``java*`` classes.

Source: the documentation of ``java.util.regex.Pattern``, Java 21.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import regex

_SPELT: Final = {
    "Lower": "[a-z]",
    "Upper": "[A-Z]",
    "ASCII": r"[\x00-\x7f]",
    "Alpha": "[a-zA-Z]",
    "Digit": "[0-9]",
    "Alnum": "[a-zA-Z0-9]",
    "Punct": r"[!-/:-@\[-`{-~]",
    "Graph": "[!-~]",
    "Print": "[ -~]",
    "Blank": r"[ \t]",
    "Cntrl": r"[\x00-\x1f\x7f]",
    "XDigit": "[0-9a-fA-F]",
    "Space": r"[ \t\n\x0b\f\r]",
    "IsTitlecase": r"\p{Lt}",
    "javaLowerCase": r"\p{Lowercase}",
    "javaUpperCase": r"\p{Uppercase}",
    "javaTitleCase": r"\p{Lt}",
    "javaAlphabetic": r"\p{Alphabetic}",
    "javaIdeographic": r"\p{Ideographic}",
    "javaLetter": r"\p{L}",
    "javaDigit": r"\p{Nd}",
    "javaLetterOrDigit": r"[\p{L}\p{Nd}]",
    "javaDefined": r"\P{Cn}",
    "javaSpaceChar": r"\p{Z}",
    "javaWhitespace": r"[\p{Z}\t-\r\x1c-\x1f--\xa0\u2007\u202f]",
    "javaISOControl": r"\p{Cc}",
    "javaMirrored": r"\p{Bidi_Mirrored}",
}
_CASED: Final = frozenset(
    {"Lu", "Ll", "Lt", "javaLowerCase", "javaUpperCase", "javaTitleCase", "IsLowercase", "IsUppercase", "IsTitlecase"}
)
# A category; a category, script or binary property; a block; and what says itself which of them it is.
_NAMED: Final = regex.compile(
    r"(?P<value>[CLMNPSZ][a-z]?|LC)|Is(?P<value>[\w -]+)|In(?P<block>[\w -]+)"
    r"|(?P<value>(?:gc|general_category|sc|script|blk|block)=[\w -]+)"
)


@lru_cache(maxsize=256)
def property_set(name: str, ignore_case: bool = False) -> str | None:
    """Return the set of the property's characters, None for a name that Java or ``regex`` does not know.

    Args:
        name: what stands in the braces.
        ignore_case: under Java's flag ``i``, for which lower, upper and title case are one.
    """
    if ignore_case and name in ("Lower", "Upper"):
        return _SPELT["Alpha"]
    if ignore_case and name in _CASED:
        return r"[\p{Lu}\p{Ll}\p{Lt}]"
    if name in _SPELT:
        return _SPELT[name]
    found = _NAMED.fullmatch(name)
    if found is None:
        return None
    spelt = rf"\p{{blk={found['block']}}}" if found["block"] else rf"\p{{{found['value']}}}"
    try:
        regex.compile(spelt, regex.V1)
    except regex.error:
        return None
    return spelt
