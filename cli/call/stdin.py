"""A text that a command is given as an argument, or on its standard input."""

from __future__ import annotations

import sys

from penstock.cli import output
from penstock.config.errors import InputInvalid


def read_text(given: str) -> str:
    """Return the text that an argument names: itself, or stdin for ``-``.

    Raises:
        InputInvalid: stdin is not UTF-8.
    """
    if given != "-":
        return given
    if sys.stdin.isatty():
        output.note("reading the text from the terminal; Ctrl-D ends it")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise InputInvalid(f"the text on stdin is not UTF-8 (byte {exc.start}): convert it first") from exc
