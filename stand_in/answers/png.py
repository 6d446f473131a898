"""A tiny PNG for every prompt, and the path under which the stand-in serves it. Pure."""

from __future__ import annotations

import struct
import zlib


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour: int, side: int = 8) -> bytes:
    """Return a valid PNG of ``side`` by ``side`` pixels of one 24-bit colour."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    row = b"\0" + colour.to_bytes(3, "big") * side
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(row * side)) + _chunk(b"IEND", b"")


def colour_of(prompt: str, number: int) -> int:
    """Return the 24-bit colour of image ``number`` of a prompt."""
    return zlib.crc32(f"{number}:{prompt}".encode("utf-8", "surrogatepass")) & 0xFFFFFF
