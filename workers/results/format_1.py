"""Reads what Penstock wrote until format 2: a JSON header, and arrays behind it. Nothing writes it any more.

::

    "PSR" 1:u8  tag_length:u8  form:u8  header_length:u32le  tag  header(JSON, UTF-8)  arrays...

In the header every value of a type of ours is ``{tag: [kind, ...]}``; the tag was chosen so that no key of the user's
equals it. Arrays follow in the order of their mention. Form 1 is a task's metadata without their names.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from kombu.utils import json as kombu_json

from penstock.workers.results.kinds import KINDS, ArrayReader

_PREFIX = struct.Struct("<3sBBBI")


def read(view: memoryview) -> tuple[int, Any]:
    """Return the form and the value of a container of format 1, whose first four bytes were looked at.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, struct.error, ArithmeticError, RecursionError: damaged.
    """
    _, _, tag_length, form, length = _PREFIX.unpack_from(view)
    start = _PREFIX.size + tag_length
    if len(view) < start + length:
        raise ValueError("it is cut off")
    arrays = ArrayReader(view[start + length :])
    decoder = _DecoderOfFormat1(bytes(view[_PREFIX.size : start]).decode(), arrays)
    value = json.loads(bytes(view[start : start + length]), object_hook=decoder.hook)
    arrays.finish()
    return form, value


class _DecoderOfFormat1:
    def __init__(self, tag: str, arrays: ArrayReader) -> None:
        self.tag, self.arrays = tag, arrays

    def hook(self, found: dict[str, Any]) -> Any:
        if len(found) != 1 or self.tag not in found:
            return found
        kind, *fields = found[self.tag]
        if kind == "a":
            return self.arrays.next(*fields)
        if kind == "k":
            marker, value = fields
            return kombu_json.object_hook({"__type__": marker, "__value__": value})
        return KINDS[kind][2](fields)
