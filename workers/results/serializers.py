"""Tells kombu how results, and what is in them, are written and read. That is loaded when there is something to read.

Who only sends tasks, and looks at no result, needs neither numpy nor the codec.
"""

from __future__ import annotations

import sys
from typing import Any

import kombu.serialization
from kombu.utils import json as kombu_json

from penstock.config.celery import RESULT_CONTENT_TYPE, RESULT_SERIALIZER
from penstock.config.formats import RESULT_MAGIC
from penstock.workers.results.types import Choice, CompleteResult, Effort, EmbedResult, Failure, ImageResult, Usage

#: Our types by their letter on the wire; ``kinds`` has their fields.
LETTERS: dict[str, type] = {
    "e": EmbedResult,
    "c": CompleteResult,
    "i": ImageResult,
    "o": Choice,
    "f": Failure,
    "u": Usage,
    "w": Effort,
}


def is_ours(payload: Any) -> bool:
    """Whether something stored is in our format."""
    return isinstance(payload, bytes | bytearray | memoryview) and bytes(payload[:3]) == RESULT_MAGIC


class _ArrayType(type):
    def __instancecheck__(cls, value: Any) -> bool:
        numpy = sys.modules.get("numpy")
        return numpy is not None and isinstance(value, numpy.ndarray)


class _Array(metaclass=_ArrayType):
    """Stands for numpy's arrays, whether numpy is loaded or not."""


def register() -> None:
    """Register the result serializer, and our types with kombu's JSON. Doing so again changes nothing.

    The three results are mappings in JSON by their own ``__json__``, whatever is registered: with their markers only
    messages of earlier versions are read.
    """
    kombu.serialization.register(
        RESULT_SERIALIZER, _encode, read_ours, content_type=RESULT_CONTENT_TYPE, content_encoding="binary"
    )
    for letter, cls in LETTERS.items():
        kombu_json.register_type(cls, f"penstock.{letter}", _packer(letter), _unpacker(letter))
    kombu_json.register_type(_Array, "penstock.array", _array_to_json, _array_from_json)


def read_ours(payload: bytes) -> Any:
    """Read what is in our format. Errors as for ``codec.decode``."""
    from penstock.workers.results.codec import decode

    return decode(payload)


def _encode(value: Any) -> bytes:
    from penstock.workers.results.codec import encode

    return encode(value)


def _kinds() -> Any:
    from penstock.workers.results import kinds

    return kinds


def _packer(letter: str) -> Any:
    return lambda value: _kinds().KINDS[letter][1](value)


def _unpacker(letter: str) -> Any:
    return lambda fields: _kinds().KINDS[letter][2](fields)


def _array_to_json(array: Any) -> Any:
    return _kinds().array_to_json(array)


def _array_from_json(fields: Any) -> Any:
    return _kinds().array_from_json(fields)
