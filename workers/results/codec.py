"""How results travel: Celery's metadata as JSON, and vectors as raw little-endian bytes behind it.

::

    "PSR" format:u8  tag_length:u8  form:u8  header_length:u32le  tag  header(JSON, UTF-8)  arrays...

Form 1 is a task's metadata, whose names are left out; form 0 is anything else. In the header every value of a type of
ours is ``{tag: [kind, ...]}``; the tag is chosen so that no key of the user's equals it. Arrays follow in the order of
their mention. A 1536-dimension vector costs some 6.3 kB with all metadata, where JSON takes 34 kB. Nothing is
executable: kinds and array types come from closed lists.

The same types are registered with kombu's JSON, arrays as base64, so that results pass from task to task.
"""

from __future__ import annotations

import base64
import copy
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import kombu.serialization
import numpy as np
from kombu.exceptions import DecodeError
from kombu.utils import json as kombu_json
from numpy.typing import NDArray

from penstock.config.celery import RESULT_CONTENT_TYPE, RESULT_SERIALIZER
from penstock.config.errors import FormatTooNew
from penstock.config.formats import FIRST, RESULT
from penstock.workers.results.types import Choice, CompleteResult, Effort, EmbedResult, Failure, ImageResult, Usage

MAGIC = b"PSR"
_PREFIX = struct.Struct("<3sBBBI")

# The names of the array types on the wire. All are little-endian.
ARRAY_TYPES = {
    name: np.dtype(f"<{name}") for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
}

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

Fields = list[Any]


class ResultTooNew(FormatTooNew, DecodeError):
    """A newer version stored the result. It is kombu's ``DecodeError`` as well, for callers that catch that."""


def register() -> None:
    """Register the result serializer, and our types with kombu's JSON. Doing so again changes nothing."""
    kombu.serialization.register(
        RESULT_SERIALIZER, encode, decode, content_type=RESULT_CONTENT_TYPE, content_encoding="binary"
    )
    for kind, (cls, pack, unpack) in _KINDS.items():
        kombu_json.register_type(cls, f"penstock.{kind}", pack, unpack)
    kombu_json.register_type(np.ndarray, "penstock.array", _array_to_json, _array_from_json)


# The container ------------------------------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Return the container of ``value``: JSON's types, ours, numpy arrays of the listed types, and kombu's."""
    form, top = _PLAIN, value
    if isinstance(value, dict) and value.keys() >= _META_NAMES:
        form, top = _OF_TASK, _without_names(value)
    tag = "~"
    while True:
        encoder = _Encoder(tag)
        header = encoder.encode(top)
        if header.count(f'"{tag}":') == encoder.uses:
            break
        tag += "~"  # a key of the user's looks like ours
    text = header.encode()
    tag_bytes = tag.encode()
    prefix = _PREFIX.pack(MAGIC, RESULT.number, len(tag_bytes), form, len(text))
    return b"".join([prefix, tag_bytes, text, *encoder.arrays])


def decode(data: bytes | bytearray | memoryview) -> Any:
    """Return what ``encode`` was given; tuples come back as lists, as with JSON. Arrays are writable copies.

    Raises:
        ResultTooNew: a newer version wrote it.
        kombu.exceptions.DecodeError: the bytes are no such container, or damaged.
    """
    try:
        view = memoryview(data)
        magic, number, tag_length, form, length = _PREFIX.unpack_from(view)
        start = _PREFIX.size + tag_length
        if magic != MAGIC:
            raise ValueError("it does not start with the container's mark")
        if number < FIRST:
            raise ValueError(f"there is no format {number}")
        _check_format(number)
        if len(view) < start + length:
            raise ValueError("it is cut off")
        tag = bytes(view[_PREFIX.size : start]).decode()
        decoder = _Decoder(tag, view[start + length :])
        top = json.loads(bytes(view[start : start + length]), object_hook=decoder.hook)
        decoder.finish()
        return _with_names(top) if form == _OF_TASK else top
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, ArithmeticError, RecursionError) as exc:
        raise DecodeError(f"a result that cannot be read: {exc}") from exc


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


class _Encoder(kombu_json.JSONEncoder):
    def __init__(self, tag: str) -> None:
        super().__init__(separators=(",", ":"), ensure_ascii=False)
        self.tag = tag
        self.uses = 0
        self.arrays: list[bytes] = []

    def default(self, o: Any) -> Any:
        self.uses += 1
        if isinstance(o, np.ndarray):
            array, name = _little_endian(o)
            self.arrays.append(array.tobytes())
            return {self.tag: ["a", name, list(array.shape)]}
        for kind, (cls, pack, _) in _KINDS.items():
            if isinstance(o, cls):
                return {self.tag: [kind, *pack(o)]}
        known = super().default(o)  # type: ignore[no-untyped-call]
        if isinstance(known, dict) and known.keys() == {"__type__", "__value__"}:
            return {self.tag: ["k", known["__type__"], known["__value__"]]}
        self.uses -= 1
        return known


class _Decoder:
    def __init__(self, tag: str, arrays: memoryview) -> None:
        self.tag, self.arrays, self.offset = tag, arrays, 0

    def hook(self, found: dict[str, Any]) -> Any:
        if len(found) != 1 or self.tag not in found:
            return found
        kind, *fields = found[self.tag]
        if kind == "a":
            return self._array(*fields)
        if kind == "k":
            marker, value = fields
            convert: Callable[[Any], Any] = kombu_json._decoders[marker]
            return convert(value)
        return _KINDS[kind][2](fields)

    def _array(self, name: str, shape: list[int]) -> NDArray[Any]:
        # JSON names arrays in the order in which they lie, for decoding meets them in the order of encoding.
        array = _read_array(name, shape, self.arrays[self.offset :])
        self.offset += array.nbytes
        return array

    def finish(self) -> None:
        if self.offset != len(self.arrays):
            raise ValueError(f"{len(self.arrays) - self.offset} bytes belong to no array")


# Arrays -------------------------------------------------------------------------------------------------------------


def _little_endian(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    name = array.dtype.str[1:]
    if name not in ARRAY_TYPES:
        raise TypeError(f"arrays of {array.dtype} cannot be sent: convert it to one of {', '.join(ARRAY_TYPES)}")
    return np.ascontiguousarray(array, dtype=ARRAY_TYPES[name]).reshape(array.shape), name


def _read_array(name: str, shape: list[int], data: memoryview) -> NDArray[Any]:
    dtype = ARRAY_TYPES[name]
    count = 1
    for size in shape:
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"an array has the shape {shape}")
        count *= size
    if count * dtype.itemsize > len(data):
        raise ValueError(f"an array of shape {shape} is cut off")
    return np.frombuffer(data, dtype, count).reshape(shape).copy()


def _array_to_json(array: NDArray[Any]) -> Fields:
    little, name = _little_endian(array)
    return [name, list(little.shape), base64.b64encode(little.tobytes()).decode()]


def _array_from_json(fields: Fields) -> NDArray[Any]:
    name, shape, text = fields
    return _read_array(name, shape, memoryview(base64.b64decode(text, validate=True)))


# Our types ----------------------------------------------------------------------------------------------------------


def _numbers(value: Usage | Effort) -> list[int]:
    numbers = list(vars(value).values())
    while numbers and numbers[-1] == 0:
        del numbers[-1]
    return numbers


def _failures(fields: Fields) -> tuple[Failure, ...]:
    return tuple(Failure(*each) for each in fields)


def _pack_embed(value: EmbedResult) -> Fields:
    failures = [_pack_failure(each) for each in value.failures]
    return [value.vectors, _numbers(value.usage), value.model, failures, _numbers(value.effort)]


def _unpack_embed(fields: Fields) -> EmbedResult:
    vectors, usage, model, failures, effort = fields
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2:
        raise ValueError("an embedding's vectors are no (n, d) array")
    return EmbedResult(vectors, Usage(*usage), model, _failures(failures), Effort(*effort))


def _pack_failure(value: Failure) -> Fields:
    return [value.index, value.code, value.message, value.attempts]


def _pack_choice(value: Choice) -> Fields:
    return [value.index, value.text, value.finish_reason, dict(value.message)]


def _pack_complete(value: CompleteResult) -> Fields:
    choices = [_pack_choice(each) for each in value.choices]
    return [choices, _numbers(value.usage), value.model, _numbers(value.effort), dict(value.extra)]


def _unpack_complete(fields: Fields) -> CompleteResult:
    choices, usage, model, effort, extra = fields
    return CompleteResult(tuple(Choice(*each) for each in choices), Usage(*usage), model, Effort(*effort), extra)


def _pack_image(value: ImageResult) -> Fields:
    failures = [_pack_failure(each) for each in value.failures]
    lists: list[Any] = [list(value.urls), list(value.b64), value.operation_id, list(value.revised_prompts)]
    return [*lists, list(value.files), failures, _numbers(value.usage), _numbers(value.effort), dict(value.times)]


def _unpack_image(fields: Fields) -> ImageResult:
    urls, b64, operation, prompts, files, failures, usage, effort, times = fields
    return ImageResult(
        tuple(urls),
        tuple(b64),
        operation,
        tuple(prompts),
        tuple(files),
        _failures(failures),
        Usage(*usage),
        Effort(*effort),
        times,
    )


_KINDS: Mapping[str, tuple[type, Callable[[Any], Fields], Callable[[Fields], Any]]] = {
    "e": (EmbedResult, _pack_embed, _unpack_embed),
    "c": (CompleteResult, _pack_complete, _unpack_complete),
    "i": (ImageResult, _pack_image, _unpack_image),
    "o": (Choice, _pack_choice, lambda fields: Choice(*fields)),
    "f": (Failure, _pack_failure, lambda fields: Failure(*fields)),
    "u": (Usage, _numbers, lambda fields: Usage(*fields)),
    "w": (Effort, _numbers, lambda fields: Effort(*fields)),
}
