"""What each character is to the word rules, as tables over all code points.

Two tables: ``classes`` serves the fast scanner (``fast.py``) and knows the scripts of most prose; ``traits`` tells for
every character whether it makes a segment a word. Both are facts of ICU 78.3 (UAX #29's Word_Break property), checked
against ICU in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.tasks.chunking.boundaries.word_characters import (
    ATTACHING_RANGES,
    HANGUL_RANGES,
    KANA_OR_HAN_RANGES,
    UNDERSCORE_RANGES,
    WORD_RANGES,
)

CODE_POINTS = 0x110000

# The classes of the fast scanner. COMPLEX characters (combining marks, right-to-left scripts, scripts split by
# dictionary, emoji ...) are left to ICU.
COMPLEX, OTHER, LETTER, DIGIT, UNDERSCORE, MID_LETTER, MID_NUMBER, MID_BOTH, SPACE, CR, LF, NEWLINE = range(12)

# Blocks whose characters are all simple, but for those named COMPLEX below.
_SIMPLE: Final = ((0x0, 0x2FF), (0x370, 0x52F), (0x1E00, 0x2064), (0x20A0, 0x20CF), (0x2100, 0x218F))
_COMPLEX: Final = ((0xAD, 0xAD), (0x483, 0x489), (0x200C, 0x200F), (0x202A, 0x202E), (0x2060, 0x2064))

_CLASSES: Final[dict[int, tuple[tuple[int, int], ...]]] = {
    DIGIT: ((0x30, 0x39),),
    MID_LETTER: ((0x3A, 0x3A), (0xB7, 0xB7), (0x387, 0x387), (0x2027, 0x2027)),
    MID_NUMBER: ((0x2C, 0x2C), (0x3B, 0x3B), (0x37E, 0x37E), (0x2044, 0x2044)),
    MID_BOTH: ((0x27, 0x27), (0x2E, 0x2E), (0x2018, 0x2019), (0x2024, 0x2024)),
    SPACE: ((0x20, 0x20), (0x2000, 0x2006), (0x2008, 0x200A), (0x205F, 0x205F)),
    CR: ((0xD, 0xD),),
    LF: ((0xA, 0xA),),
    NEWLINE: ((0xB, 0xC), (0x85, 0x85), (0x2028, 0x2029)),
}

# The traits, bits of ``traits``.
WORD, KANA_OR_HAN, UNDERSCORE_LIKE, ATTACHING, HANGUL, APOSTROPHE = 1, 2, 4, 8, 16, 32


@cache
def classes() -> NDArray[np.uint8]:
    """Return the class of every code point, shape ``(0x110000,)``."""
    table = np.zeros(CODE_POINTS, np.uint8)
    _fill(table, _SIMPLE, OTHER)
    simple = table == OTHER
    for ranges, value in ((WORD_RANGES, LETTER), (UNDERSCORE_RANGES, UNDERSCORE)):
        _fill(table, ranges, value)
    table[~simple] = COMPLEX
    for value, fixed in _CLASSES.items():
        _fill(table, fixed, value)
    _fill(table, _COMPLEX, COMPLEX)
    table.flags.writeable = False
    return table


@cache
def traits() -> NDArray[np.uint8]:
    """Return the traits of every code point, a set of the bits above, shape ``(0x110000,)``."""
    table = np.zeros(CODE_POINTS, np.uint8)
    for ranges, bit in (
        (WORD_RANGES, WORD),
        (KANA_OR_HAN_RANGES, KANA_OR_HAN),
        (UNDERSCORE_RANGES, UNDERSCORE_LIKE),
        (ATTACHING_RANGES, ATTACHING),
        (HANGUL_RANGES, HANGUL),
        (((0x27, 0x27),), APOSTROPHE),
    ):
        for first, last in ranges:
            table[first : last + 1] |= bit
    table.flags.writeable = False
    return table


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the text's code points, shape ``(len(text),)``."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _fill(table: NDArray[np.uint8], ranges: Iterable[tuple[int, int]], value: int) -> None:
    for first, last in ranges:
        table[first : last + 1] = value
