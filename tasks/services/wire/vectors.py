"""Vectors off the wire: base64 or lists of numbers to checked arrays. An answer with a fault anywhere is refused whole.

Nothing is repaired or guessed: a row in the wrong place is worse than a request sent again.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.tasks.services.base import Refused
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype("<f4"),
    "base64": np.dtype("<f4"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "binary": np.dtype("i1"),  # eight dimensions a byte, as signed bytes
    "ubinary": np.dtype("u1"),
}
"""The element type by ``encoding_format`` / ``embedding_types``."""


def malformed(code: str, message: str) -> Refused:
    """The refusal of a 2xx answer that is not what was asked; it may have been billed."""
    return Refused(Outcome(OutcomeKind.MALFORMED, code, message))


def in_order(data: Any, count: int) -> list[Any]:
    """Return the ``embedding`` values of OpenAI's ``data`` list, sorted by ``index``.

    Args:
        data: a list of ``{"index": i, "embedding": ...}``; where no item has an index, their order counts.
        count: how many were asked for.

    Raises:
        Refused: MALFORMED ``missing_data``, ``wrong_count`` or ``wrong_index`` (double, missing, out of range).
    """
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise malformed("missing_data", "The answer has no list of embeddings.")
    if len(data) != count:
        raise malformed("wrong_count", f"Asked for {count} embeddings, the answer has {len(data)}.")
    if all(item.get("index") is None for item in data):
        return [item.get("embedding") for item in data]
    rows: dict[int, Any] = {}
    for item in data:
        index = item.get("index")
        if type(index) is not int or not 0 <= index < count or index in rows:
            raise malformed("wrong_index", f"The answer's indices are not 0 to {count - 1}, each once: {index!r:.40}.")
        rows[index] = item.get("embedding")
    return [rows[index] for index in range(count)]


def stack(rows: Sequence[Any], count: int, *, dimensions: int | None = None, encoding: str = "float") -> NDArray[Any]:
    """Return ``(count, d)`` of the rows: float32, or int8/uint8 for a typed encoding.

    Args:
        rows: per input a list of numbers or a base64 string of little-endian elements, whichever the server chose.
        count: how many were asked for.
        dimensions: the number asked for, None if it was left to the model.
        encoding: a key of ``TYPES``; the packed ones have ``dimensions / 8`` bytes a row.

    Raises:
        Refused: MALFORMED ``wrong_count``, ``bad_vector``, ``wrong_dimensions`` or ``not_finite``.
    """
    if len(rows) != count:
        raise malformed("wrong_count", f"Asked for {count} embeddings, the answer has {len(rows)}.")
    dtype = TYPES[encoding]
    decoded = [_decode(row, dtype) for row in rows]
    widths = {row.size for row in decoded}
    if len(widths) > 1:
        raise malformed("wrong_dimensions", f"The answer's embeddings differ in length: {sorted(widths)[:4]}.")
    wanted = _width(dimensions, encoding)
    if wanted is not None and widths and widths != {wanted}:
        raise malformed("wrong_dimensions", f"Asked for {wanted} elements an embedding, the answer has {max(widths)}.")
    vectors = np.stack(decoded) if decoded else np.empty((0, 0), dtype)
    if dtype.kind == "f" and not np.isfinite(vectors).all():
        raise malformed("not_finite", "An embedding has an element that is not a finite number.")
    return vectors.astype(dtype.newbyteorder("="), copy=False)


def _width(dimensions: int | None, encoding: str) -> int | None:
    if dimensions is None or encoding not in ("binary", "ubinary"):
        return dimensions
    return -(-dimensions // 8)


def _decode(row: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if isinstance(row, str):
        return _from_base64(row, dtype)
    if isinstance(row, list) and row:
        return _from_list(row, dtype)
    raise malformed("bad_vector", "An embedding is neither a list of numbers nor base64, or is empty.")


def _from_base64(text: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as exc:
        raise malformed("bad_vector", "An embedding is not valid base64.") from exc
    if not raw or len(raw) % dtype.itemsize:
        raise malformed("bad_vector", f"An embedding of {len(raw)} bytes is no row of {dtype.itemsize}-byte elements.")
    return np.frombuffer(raw, dtype)


def _from_list(row: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        # Without a dtype first: with one, numpy would read numbers out of strings.
        values = np.array(row)
    except (ValueError, OverflowError) as exc:
        raise malformed("bad_vector", "An embedding is not a flat list of numbers.") from exc
    if values.ndim == 1 and values.dtype.kind == "O" and None in row:  # how JSON writers spell NaN
        raise malformed("not_finite", "An embedding has an element that is not a finite number.")
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise malformed("bad_vector", "An embedding is not a flat list of numbers.")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is refused with its own code
            return values.astype(dtype)
    bounds = np.iinfo(dtype)
    if (values != np.floor(values)).any() or values.min() < bounds.min or values.max() > bounds.max:
        raise malformed("bad_vector", f"An embedding has elements that are no {dtype.name}.")
    return values.astype(dtype)
