"""How results travel: msgpack, and vectors as raw little-endian bytes behind it, under a checksum.

::

    "PSR" format:u8  checksum:8 bytes  form:u8  header_length:u32le  header(msgpack)  arrays...

The checksum is XXH3 (64 bits) over all that follows it, so that a damaged result is refused and never read wrong; over
128 vectors CRC-32 would take longer than all the rest (``benchmarks/codec.py``). Form 1 is a task's metadata, whose
names are left out; form 0 is anything else. In the header every value of a type of ours is a msgpack extension: its
code is the kind's letter, its data are the fields. Arrays follow in the order of their mention. A 1536-dimension vector
costs some 6.3 kB with all metadata, where JSON takes 34 kB. Nothing is executable: kinds and array types come from
closed lists.

Format 1 is still read.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable
from typing import Any

import msgpack
import numpy as np
import xxhash
from kombu.exceptions import DecodeError
from kombu.utils import json as kombu_json
from numpy.typing import NDArray

from penstock.config.errors import FormatTooNew
from penstock.config.formats import RESULT, RESULT_MAGIC
from penstock.workers.results import format_1
from penstock.workers.results.kinds import ARRAY_TYPES, KINDS, ArrayReader, little_endian

__all__ = ["ARRAY_TYPES", "decode", "encode"]

_PREFIX = struct.Struct("<3sB8s")
_HEAD = struct.Struct("<BI")

# A task's metadata as Celery's back ends write it, what is seldom there last: sent as a list without the usual end.
_META: dict[str, Any] = {
    "status": ...,
    "result": ...,
    "date_done": ...,
    "task_id": ...,
    "traceback": None,
    "children": [],
    "": {},
}
_META_NAMES = frozenset(name for name in _META if name)
_REQUIRED = [name for name, usual in _META.items() if usual is ...]
_PLAIN, _OF_TASK = 0, 1

# Extensions beside the kinds: an array, a type that kombu's JSON knows, an integer of more than 64 bits.
_ARRAY, _KOMBU, _INTEGER = ord("a"), ord("k"), ord("n")


class ResultTooNew(FormatTooNew, DecodeError):
    """A newer version stored the result. It is kombu's ``DecodeError`` as well, for callers that catch that."""


def encode(value: Any) -> bytes:
    """Return the container of ``value``: JSON's types, ours, numpy arrays of the listed types, bytes and kombu's.

    Raises:
        TypeError: a value of another type.
        ValueError: a text that UTF-8 cannot carry, or nesting beyond 500 levels.
    """
    form, top = _PLAIN, value
    if isinstance(value, dict) and value.keys() >= _META_NAMES:
        form, top = _OF_TASK, _without_names(value)
    encoder = _Encoder()
    header = encoder.pack(top)
    parts: list[Any] = [_HEAD.pack(form, len(header)), header, *encoder.arrays]
    return b"".join([_PREFIX.pack(RESULT_MAGIC, RESULT.number, _checksum(parts)), *parts])


def decode(data: bytes | bytearray | memoryview) -> Any:
    """Return what ``encode`` was given; tuples come back as lists, but for keys. Arrays are writable copies.

    Raises:
        ResultTooNew: a newer version wrote it.
        kombu.exceptions.DecodeError: the bytes are no such container, or damaged.
    """
    try:
        view = memoryview(data)
        if view[:3] != RESULT_MAGIC:
            raise ValueError("it does not start with the container's mark")
        number = view[3]
        _check_format(number)
        form, top = _READERS[number](view)
        return _with_names(top) if form == _OF_TASK else top
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, ArithmeticError, RecursionError) as exc:
        raise DecodeError(f"a result that cannot be read: {exc}") from exc


def _read(view: memoryview) -> tuple[int, Any]:
    _, _, checksum = _PREFIX.unpack_from(view)
    if _checksum([view[_PREFIX.size :]]) != checksum:
        raise ValueError("it is damaged: its checksum does not agree")
    form, length = _HEAD.unpack_from(view, _PREFIX.size)
    start = _PREFIX.size + _HEAD.size
    if len(view) < start + length:
        raise ValueError("it is cut off")
    arrays = ArrayReader(view[start + length :])
    value = _Decoder(arrays).unpack(view[start : start + length])
    arrays.finish()
    return form, value


_READERS = {1: format_1.read, RESULT.number: _read}


def _checksum(parts: Iterable[Any]) -> bytes:
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _check_format(number: int) -> None:
    try:
        RESULT.check(number)
    except FormatTooNew as exc:
        raise ResultTooNew(*exc.args) from None


def _without_names(meta: dict[str, Any]) -> list[Any]:
    rest = {name: item for name, item in meta.items() if name not in _META}
    values = [meta[name] for name in _META if name] + [rest]
    usual = list(_META.values())
    while values[-1] == usual[-1]:
        del values[-1], usual[-1]
    return values


def _with_names(values: Any) -> dict[str, Any]:
    if not isinstance(values, list) or not len(_REQUIRED) <= len(values) <= len(_META):
        raise ValueError("a task's metadata are incomplete")
    meta = dict(zip(_META, [*values, *copy.deepcopy(list(_META.values())[len(values) :])], strict=True))
    rest = meta.pop("")
    return {**meta, **rest}


class _Encoder:
    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []

    def pack(self, value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, default=self._extension)
        return packed

    def _extension(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            array, name = little_endian(value)
            self.arrays.append(array.reshape(-1).view(np.uint8))
            return msgpack.ExtType(_ARRAY, self.pack([name, *array.shape]))
        for kind, (cls, fields, _) in KINDS.items():
            if isinstance(value, cls):
                return msgpack.ExtType(ord(kind), self.pack(fields(value)))
        if isinstance(value, int):
            size = value.bit_length() // 8 + 1
            return msgpack.ExtType(_INTEGER, value.to_bytes(size, "little", signed=True))
        known = kombu_json.JSONEncoder().default(value)
        if isinstance(known, dict) and known.keys() == {"__type__", "__value__"}:
            return msgpack.ExtType(_KOMBU, self.pack(known))
        return known


class _Decoder:
    def __init__(self, arrays: ArrayReader) -> None:
        self._arrays = arrays

    def unpack(self, data: bytes | memoryview) -> Any:
        return msgpack.unpackb(data, ext_hook=self._value, object_pairs_hook=_mapping, strict_map_key=False)

    def _value(self, code: int, data: bytes) -> Any:
        if code == _INTEGER:
            return int.from_bytes(data, "little", signed=True)
        fields = self.unpack(data)
        if code == _ARRAY:
            name, *shape = fields
            return self._arrays.next(name, shape)
        if code == _KOMBU:
            return kombu_json.object_hook(fields)
        return KINDS[chr(code)][2](fields)


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    try:
        return dict(pairs)
    except TypeError:  # a tuple was a key: it has come as a list
        return {_hashable(key): value for key, value in pairs}


def _hashable(key: Any) -> Any:
    return tuple(_hashable(each) for each in key) if isinstance(key, list) else key
