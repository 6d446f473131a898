"""Our types and numpy's arrays as plain fields, for every form in which results and arguments travel.

The fields of a kind are part of the formats: a change of their number or order is a new format, and what was written
before must still be read. Kinds and array types are closed lists.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.workers.results.types import Choice, CompleteResult, Effort, EmbedResult, Failure, ImageResult, Usage

# The names of the array types on the wire. All are little-endian.
ARRAY_TYPES = {
    name: np.dtype(f"<{name}") for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
}

Fields = list[Any]

# Arrays -------------------------------------------------------------------------------------------------------------


def little_endian(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Return an array as it travels, contiguous and little-endian, and its type's name. Raises TypeError."""
    name = array.dtype.str[1:]
    if name not in ARRAY_TYPES:
        raise TypeError(f"arrays of {array.dtype} cannot be sent: convert it to one of {', '.join(ARRAY_TYPES)}")
    return np.ascontiguousarray(array, dtype=ARRAY_TYPES[name]).reshape(array.shape), name


def read_array(name: str, shape: list[int], data: memoryview) -> NDArray[Any]:
    """Return a writable copy of the array at the beginning of ``data``. Raises ValueError or LookupError."""
    dtype = ARRAY_TYPES[name]
    count = 1
    for size in shape:
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"an array has the shape {shape}")
        count *= size
    if count * dtype.itemsize > len(data):
        raise ValueError(f"an array of shape {shape} is cut off")
    return np.frombuffer(data, dtype, count).reshape(shape).copy()


class ArrayReader:
    """Reads arrays that lie one after another: decoding meets their mentions in the order of encoding.

    Args:
        arrays: their bytes.
    """

    def __init__(self, arrays: memoryview) -> None:
        self._arrays, self._offset = arrays, 0

    def next(self, name: str, shape: list[int]) -> NDArray[Any]:
        """Return a writable copy of the next array. Raises ValueError or LookupError."""
        array = read_array(name, shape, self._arrays[self._offset :])
        self._offset += array.nbytes
        return array

    def finish(self) -> None:
        """Check that none is left. Raises ValueError."""
        if self._offset != len(self._arrays):
            raise ValueError(f"{len(self._arrays) - self._offset} bytes belong to no array")


def array_to_json(array: NDArray[Any]) -> Fields:
    """Return an array as JSON's types."""
    little, name = little_endian(array)
    return [name, list(little.shape), base64.b64encode(little.tobytes()).decode()]


def array_from_json(fields: Fields) -> NDArray[Any]:
    """Return the array of ``array_to_json``."""
    name, shape, text = fields
    return read_array(name, shape, memoryview(base64.b64decode(text, validate=True)))


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


KINDS: Mapping[str, tuple[type, Callable[[Any], Fields], Callable[[Fields], Any]]] = {
    "e": (EmbedResult, _pack_embed, _unpack_embed),
    "c": (CompleteResult, _pack_complete, _unpack_complete),
    "i": (ImageResult, _pack_image, _unpack_image),
    "o": (Choice, _pack_choice, lambda fields: Choice(*fields)),
    "f": (Failure, _pack_failure, lambda fields: Failure(*fields)),
    "u": (Usage, _numbers, lambda fields: Usage(*fields)),
    "w": (Effort, _numbers, lambda fields: Effort(*fields)),
}
"""A type of ours by its letter on the wire: the class, its fields, and the way back."""
