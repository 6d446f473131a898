"""Boundaries of a long text, a window at a time, so that memory does not grow with the text.

A window must not change what is found. Word windows end where a boundary is sure whatever follows
(``Stretch.last_cut``, or after an ideographic stop). Sentence windows may end anywhere: ICU decides a boundary by
reading on until its rules can match no more, so of those found in a cut-off text only the last two can be wrong, and
are left to the next window.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from penstock.tasks.chunking.boundaries import icu
from penstock.tasks.chunking.boundaries.characters import ATTACHING, WORD, traits
from penstock.tasks.chunking.boundaries.segments import Segments, Stretch

WINDOW = 1 << 17
"""Characters looked at together."""

# An ideographic stop (or white space), and a letter or digit after it.
_STOP = re.compile(r"[\n \u3001\u3002\uff01\uff1f](?=[^\W_])")


def word_segments(text: str, window: int = WINDOW) -> Iterator[Segments]:
    """Yield the word segments of ``text`` in order, some thousands together; offsets count from the text's start.

    Args:
        text: any text.
        window: about how many characters are looked at together; more when no sure boundary is among them.
    """
    done, size = 0, window
    while done < len(text):
        part = text[done : done + size]
        stretch = Stretch(part)
        until = len(part) if done + size >= len(text) else stretch.last_cut() or _last_stop(part)
        if not until:
            size *= 2
            continue
        found = stretch.segments(until)
        yield Segments(found.ends + done, found.words)
        done, size = done + until, window


def _last_stop(part: str) -> int:
    """Return the last sure boundary of a text of other scripts: after a stop or space, before what is a word alone.

    No rule of UAX #29 joins the two: the stop has Word_Break=Other (or is a space or a line feed), and nothing but a
    space or an attaching character joins such a one.
    """
    bits = traits()
    for place in reversed([match.end() for match in _STOP.finditer(part)]):
        if bits[ord(part[place])] & (WORD | ATTACHING) == WORD:
            return place
    return 0


def sentence_ends(text: str, window: int = WINDOW) -> Iterator[NDArray[np.int64]]:
    """Yield the ends of the sentences of ``text`` in order, some hundreds together: ``(n,) int64``.

    Args:
        text: any text.
        window: about how many characters are looked at together; more when a sentence is longer.
    """
    done, size = 0, window
    while done < len(text):
        ends = icu.sentence_ends(text[done : done + size])
        if done + size < len(text):
            ends = ends[:-2]
        if not len(ends):
            size *= 2
            continue
        yield ends + done
        done, size = done + int(ends[-1]), window
