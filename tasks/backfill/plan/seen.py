"""Which texts were seen, by digest, in bounded memory: two hash tables of plain numbers, of which the older is
dropped when the newer is full. A text seen longer ago than that is embedded again, which costs money and nothing else.
"""

from __future__ import annotations

import struct
from array import array

DEFAULT_TEXTS = 1 << 20
"""Texts a table holds; a slot takes 24 bytes and half of them are free, so 50 MB a table and 100 MB at most."""

_HALVES = struct.Struct("<QQ")
_FREE = -1


class Seen:
    """Places of texts by their digest.

    Args:
        texts: how many one table holds; between this many and twice as many of the latest are known.
    """

    def __init__(self, texts: int = DEFAULT_TEXTS) -> None:
        self._limit = texts
        self._new, self._old = _Table(), _Table()

    def find(self, key: bytes) -> int | None:
        """Return the place of a text, None when it is not known. One found among the old is kept on."""
        high, low = _HALVES.unpack(key)
        place = self._new.find(high, low)
        if place == _FREE:
            if not self._old.count or (place := self._old.find(high, low)) == _FREE:
                return None
            self._put(high, low, place)
        return place

    def add(self, key: bytes, place: int) -> None:
        """Note where a text is; ``place`` is not negative."""
        high, low = _HALVES.unpack(key)
        self._put(high, low, place)

    def _put(self, high: int, low: int, place: int) -> None:
        if self._new.count >= self._limit:
            self._old, self._new = self._new, _Table()
        self._new.put(high, low, place)


class SeenIds:
    """Counts rows whose id was seen before: at least among the latest ``ids``, in some 30 MB. Repeated ids are no
    fault (each row is kept), but they are nearly always a mistake, so the user is warned."""

    def __init__(self, ids: int = 1 << 18) -> None:
        self._limit = ids
        self._new: set[int] = set()
        self._old: set[int] = set()

    def repeats(self, row_id: str) -> bool:
        """Whether the id was seen; note it."""
        key = hash(row_id)
        if key in self._new or key in self._old:
            return True
        if len(self._new) >= self._limit:
            self._old, self._new = self._new, set()
        self._new.add(key)
        return False


class _Table:
    """A hash table with open addressing, at most half full. The digest's halves are hashes already."""

    def __init__(self, slots: int = 1024) -> None:
        self.count, self._mask = 0, slots - 1
        self._high, self._low = array("Q", bytes(8 * slots)), array("Q", bytes(8 * slots))
        self._place = array("q", [_FREE]) * slots

    def find(self, high: int, low: int) -> int:
        return self._place[self._slot(high, low)]

    def put(self, high: int, low: int, place: int) -> None:
        if 2 * (self.count + 1) > self._mask:
            self._grow()
        slot = self._slot(high, low)
        self.count += self._place[slot] == _FREE
        self._high[slot], self._low[slot], self._place[slot] = high, low, place

    def _slot(self, high: int, low: int) -> int:
        """Return the slot that holds the digest, or the free one where it belongs."""
        highs, lows, places, mask = self._high, self._low, self._place, self._mask
        slot = low & mask
        while places[slot] != _FREE and (highs[slot] != high or lows[slot] != low):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        slots = self._mask + 1
        bigger = _Table((4 if slots < 1 << 16 else 2) * slots)
        for high, low, place in zip(self._high, self._low, self._place, strict=True):
            if place != _FREE:
                slot = bigger._slot(high, low)
                bigger._high[slot], bigger._low[slot], bigger._place[slot] = high, low, place
        self._high, self._low, self._place, self._mask = bigger._high, bigger._low, bigger._place, bigger._mask
