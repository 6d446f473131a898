"""ICU's own answers, by its C interface: boundaries and rule statuses, which icu4py does not tell.

The library is the one inside icu4py's wheel, so that both speak of the same version of Unicode.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import icu4py
from icu4py import breakers

WORD, SENTENCE = 1, 3
WORD_BREAK = 0x1014
DONE = -1


@cache
def _library() -> ctypes.CDLL:
    package = Path(breakers.__file__).parent
    for folder in (package.parent / "icu4py.libs", package / ".dylibs"):
        for path in sorted(folder.glob("libicuuc*")):
            return ctypes.CDLL(str(path))
    raise RuntimeError(f"icu4py's wheel has no ICU library beside {package}")


@cache
def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(_library(), f"{name}_{icu4py.icu_version_info[0]}")
    function.restype, function.argtypes = result, arguments
    return function


def boundaries(text: str, kind: int) -> list[tuple[int, int]]:
    """Return ``(end, rule status)`` of each segment, ends in characters."""
    units = text.encode("utf-16-le", "surrogatepass")
    buffer = ctypes.create_string_buffer(units + b"\0\0")
    error = ctypes.c_int(0)
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    opened = _function(
        "ubrk_open", pointer, ctypes.c_int, ctypes.c_char_p, pointer, integer, ctypes.POINTER(ctypes.c_int)
    )(kind, b"", buffer, len(units) // 2, ctypes.byref(error))
    assert error.value <= 0, f"ICU error {error.value}"
    step, status = _function("ubrk_next", integer, pointer), _function("ubrk_getRuleStatus", integer, pointer)
    found = []
    while (end := step(opened)) != DONE:
        found.append((end, status(opened)))
    _function("ubrk_close", None, pointer)(opened)
    return _in_characters(text, found)


def _in_characters(text: str, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    places, unit = {}, 0
    for place, char in enumerate(text):
        unit += 2 if ord(char) > 0xFFFF else 1
        places[unit] = place + 1
    return [(places[end], status) for end, status in found]


def word_break(code: int) -> int:
    """Return the number of a code point's Word_Break property, as ICU's ``UWordBreakValues``."""
    value: int = _function("u_getIntPropertyValue", ctypes.c_int32, ctypes.c_int32, ctypes.c_int)(code, WORD_BREAK)
    return value
