"""AWS's binary event stream (``application/vnd.amazon.eventstream``): writing only. Pure.

Source: AWS SDK documentation, "Event stream encoding"; Amazon Transcribe developer guide, "Event stream encoding".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

_STRING = 7  # the type number of a string header


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message: prelude and its CRC, headers, payload, CRC of all."""
    packed = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack(">BH", _STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return head + struct.pack(">I", zlib.crc32(head))


def event(kind: str, data: Any) -> bytes:
    """Return an event with a JSON payload."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, orjson.dumps(data))


def exception(kind: str, text: str) -> bytes:
    """Return an error in mid-stream."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, orjson.dumps({"message": text}))
