"""Word segments of a stretch of text: where each ends, and whether it is a word.

Two ways to the same answer. ``by_icu`` asks ICU about everything. ``by_table`` applies UAX #29's rules WB3 to WB13 by
table to the characters of most prose, some thirty times as fast, and asks ICU only about the stretches that hold other
characters; such a stretch reaches from one sure boundary to the next, so that neither side can change the other.
Knows no sentences and no chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.tasks.chunking.boundaries import icu
from penstock.tasks.chunking.boundaries.characters import (
    APOSTROPHE,
    ATTACHING,
    COMPLEX,
    CR,
    DIGIT,
    HANGUL,
    KANA_OR_HAN,
    LETTER,
    LF,
    MID_BOTH,
    MID_LETTER,
    MID_NUMBER,
    NEWLINE,
    SPACE,
    UNDERSCORE,
    UNDERSCORE_LIKE,
    WORD,
    classes,
    code_points,
    traits,
)

# What the classes of two neighbours say about the place between them.
_JOINED, _CUT, _MID = 1, 2, 4


@dataclass(frozen=True)
class Segments:
    """Consecutive segments.

    Args:
        ends: the end of each, ascending character offsets, ``(n,) int64``.
        words: whether ICU gives it a word's rule status, ``(n,) bool``.
    """

    ends: NDArray[np.int64]
    words: NDArray[np.bool_]


def by_icu(text: str) -> Segments:
    """Return the word segments of a whole text as ICU finds them."""
    ends = icu.word_ends(text)
    return Segments(ends, _are_words(traits()[code_points(text)], ends))


def _are_words(bits: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which segments have a rule status other than ICU's "none".

    ICU's status is that of the rule which took the segment's last character (its base, if marks are attached to it).

    Args:
        bits: the traits of the text's characters.
        ends: the ends of its segments; the last is the text's end.
    """
    starts = np.concatenate((np.zeros(1, np.int64), ends))[:-1]
    attached = (bits & (ATTACHING | WORD)) == ATTACHING
    bases = np.maximum.accumulate(np.where(attached, -1, np.arange(len(bits))))[ends - 1]
    bases = np.where(bases < starts, ends - 1, bases)  # marks alone, after a line feed
    base, marked, joined = bits[bases], bases < ends - 1, bases > starts
    words: NDArray[np.bool_] = ((base & WORD) > 0) & ~(marked & ((base & HANGUL) > 0))
    words |= ((base & UNDERSCORE_LIKE) > 0) & joined & ~marked
    words |= ((base & APOSTROPHE) > 0) & joined & ~marked  # after a Hebrew letter
    han = (bits & KANA_OR_HAN) > 0
    if np.any(han):
        words = _in_runs(han, ends, words | (~marked & han[bases] & (bases > 0) & han[bases - 1]))
    return words


def _in_runs(han: NDArray[np.bool_], ends: NDArray[np.int64], words: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Give the segments that a dictionary made of one run of Han and kana the status of the run, that is, of its last.

    Args:
        han: whether each character is Han or kana.
        ends: the ends of the segments.
        words: what each segment would be by its own last character.
    """
    goes_on = np.append(han[ends[:-1] - 1] & han[ends[:-1]], False)
    lasts = np.where(goes_on, len(ends), np.arange(len(ends)))
    return words[np.minimum.accumulate(lasts[::-1])[::-1]]


class Stretch:
    """A stretch of text that begins at a sure boundary (or the text's start), classified by table.

    Args:
        text: the stretch; at least one character.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._classes = _classify(text)
        self._between = _pairs()[(self._classes[:-1] << 4) | self._classes[1:]]

    def last_cut(self) -> int:
        """Return the last offset inside the stretch that is a boundary whatever stands around; 0 if there is none."""
        cuts = np.flatnonzero(self._between & _CUT)
        return int(cuts[-1]) + 1 if len(cuts) else 0

    def segments(self, until: int) -> Segments:
        """Return the segments up to ``until``, which must be the end of the text or a cut."""
        classes, between = self._classes[:until], self._between[: until - 1]
        boundary = (between & _JOINED) == 0
        mids = np.flatnonzero(between & _MID) + 1
        mids = mids[mids < until - 1]
        mids = mids[classes[mids - 1] == classes[mids + 1]]  # a letter or digit on both sides
        boundary[mids - 1] = False
        boundary[mids] = False
        ends = np.append(np.flatnonzero(boundary) + 1, until)
        words = _end_words(classes, ends)
        if np.any(classes == COMPLEX):
            return self._ask_icu(classes, between, Segments(ends, words))
        return Segments(ends, words)

    def _ask_icu(self, classes: NDArray[np.uint8], between: NDArray[np.uint8], simple: Segments) -> Segments:
        """Replace what was found around complex characters, from sure boundary to sure boundary, by ICU's answer."""
        cuts = np.concatenate(([0], np.flatnonzero(between & _CUT) + 1, [len(classes)]))
        spans = np.unique(np.searchsorted(cuts, np.flatnonzero(classes == COMPLEX), "right") - 1)
        breaks = np.flatnonzero(np.diff(spans) > 1)
        firsts = cuts[spans[np.concatenate(([0], breaks + 1))]]
        lasts = cuts[spans[np.concatenate((breaks, [len(spans) - 1]))] + 1]
        found = self._by_icu_between(firsts, lasts)
        span = np.searchsorted(firsts, simple.ends, "left") - 1
        kept = (span < 0) | (simple.ends > lasts[span])
        ends = np.concatenate((simple.ends[kept], found.ends))
        order = np.argsort(ends, kind="stable")
        return Segments(ends[order], np.concatenate((simple.words[kept], found.words))[order])

    def _by_icu_between(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> Segments:
        """Ask ICU about several spans in one call: a line feed between them keeps them apart, whatever they hold."""
        joined = "\n".join(self._text[first:last] for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True))
        found = by_icu(joined)
        starts = np.concatenate(([0], np.cumsum(lasts - firsts + 1)[:-1]))
        span = np.searchsorted(starts, found.ends, "left") - 1
        ours = found.ends - starts[span] <= (lasts - firsts)[span]
        return Segments((found.ends - starts[span] + firsts[span])[ours], found.words[ours])


def by_table(text: str) -> Segments:
    """Return the word segments of a whole text, the same as ``by_icu``, by table wherever that is sure."""
    return Stretch(text).segments(len(text)) if text else by_icu(text)


def _classify(text: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(text.encode("latin-1").translate(_latin_classes()), np.uint8)
    except UnicodeEncodeError:
        return classes()[code_points(text)]


def _end_words(classes: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which segments are words by their last characters: underscores are when joined to anything."""
    last = classes[ends - 1]
    words: NDArray[np.bool_] = (last == LETTER) | (last == DIGIT)
    underscores = last == UNDERSCORE
    if np.any(underscores):
        words |= underscores & (np.diff(ends, prepend=0) > 1)
    return words


@cache
def _latin_classes() -> bytes:
    return classes()[:256].tobytes()


_WORDLIKE: Final = (LETTER, DIGIT, UNDERSCORE)


@cache
def _pairs() -> NDArray[np.uint8]:
    """Return, for each pair of classes ``(before << 4) | after``, what is known of the place between them."""
    table = np.zeros(256, np.uint8)
    for before in range(1, NEWLINE + 1):
        for after in range(1, NEWLINE + 1):
            table[before << 4 | after] = _between(before, after)
    return table


def _between(before: int, after: int) -> int:
    """Apply UAX #29's rules to two neighbouring classes; neither is COMPLEX, next to which nothing is known."""
    if before in _WORDLIKE and after in _WORDLIKE:  # WB5, 8, 9, 10, 13a, 13b
        return _JOINED
    if (before, after) in ((CR, LF), (SPACE, SPACE)):  # WB3, 3d
        return _JOINED
    if before in (SPACE, LF, NEWLINE):  # WB3a; a space is joined to spaces only
        return _CUT
    letters = before == LETTER and after in (MID_LETTER, MID_BOTH)  # WB6, 7 when a letter follows
    numbers = before == DIGIT and after in (MID_NUMBER, MID_BOTH)  # WB11, 12 when a digit follows
    return _MID if letters or numbers else 0
