"""Vectors in the number types that Azure AI and Cohere offer: small integers and packed bits. Pure."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = ("float", "base64", "int8", "uint8", "binary", "ubinary")


def typed(row: NDArray[np.float32], kind: str) -> Any:
    """Return one vector as ``kind``, ready for orjson.

    ``base64`` is little-endian float32. ``int8`` and ``uint8`` scale the largest number to 127. ``binary`` and
    ``ubinary`` hold a bit for each number (1 above zero), eight in a signed or unsigned byte.
    """
    if kind == "float":
        return row
    if kind == "base64":
        return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode("ascii")
    row = np.nan_to_num(row)
    if kind in ("binary", "ubinary"):
        packed = np.packbits(row > 0)
        return packed if kind == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    largest = float(np.abs(row).max(initial=0.0)) or 1.0
    whole = np.rint(row / largest * 127).astype(np.int16)
    return whole.astype(np.int8) if kind == "int8" else (whole + 128).astype(np.uint8)
