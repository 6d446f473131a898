"""Lines of bytes from plain, gzip and Zstandard files and from standard input, with a bound on their length.

Knows nothing of what the lines say. A compressed file that ends too early gives the lines it holds, then ``Truncated``.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

import zstandard

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources.row import MAX_ROW_BYTES

COMPRESSIONS = (".gz", ".zst")
_BUFFER = 1024 * 1024


class Truncated(Exception):
    """The file is corrupt or cut from here on; nothing after this point can be read."""


class SourceLine(NamedTuple):
    """A line without its end. ``data`` is None for one over the bound."""

    ordinal: int
    data: bytes | None
    mark: int


class LineFile:
    """A file of lines, opened anew for each pass; it knows how far the last pass has come.

    Args:
        path: the file.
        limit: the longest line, in bytes.
    """

    def __init__(self, path: Path, limit: int = MAX_ROW_BYTES) -> None:
        self._path, self._limit = path, limit
        self._size = path.stat().st_size
        self._read = 0
        self._raw: IO[bytes] | None = None

    def lines(self, skip: int = 0) -> Iterator[SourceLine]:
        """Yield the lines from ordinal ``skip`` on. A byte order mark at the start is left out.

        Raises:
            Truncated: the compressed stream is cut or corrupt.
        """
        with self._path.open("rb", buffering=_BUFFER) as raw, decompressed(raw, self._path.suffix) as stream:
            self._raw = raw
            yield from split(stream, self._limit, skip)
        self._raw = None
        self._read = self._size

    def progress(self) -> tuple[int, int | None]:
        """Bytes read (of the file as it lies on the disk) and its size."""
        raw = self._raw
        if raw is not None:
            with suppress(ValueError):  # closed in between
                self._read = raw.tell()
        return self._read, self._size


class LineStream:
    """Lines of a stream that can be read once: standard input. Each line carries the checksum of all up to it."""

    def __init__(self, stream: IO[bytes], limit: int = MAX_ROW_BYTES) -> None:
        self._lines = split(stream, limit, checksum=True)
        self._held: deque[SourceLine] = deque()
        self._count = 0

    def peek(self, count: int) -> list[SourceLine]:
        """Return the first lines, keeping them for ``lines``."""
        while len(self._held) < count and (line := next(self._lines, None)) is not None:
            self._held.append(line)
        return list(self._held)

    def lines(self, skip: int = 0, mark: int = 0) -> Iterator[SourceLine]:
        """Yield the lines from ordinal ``skip`` on.

        Raises:
            InputInvalid: the lines passed over do not have the checksum ``mark``.
        """
        last = self._pass_over(skip)
        if mark and mark != last:
            raise InputInvalid(
                f"The first {skip} lines of standard input are not those of the earlier run. Give the same lines, "
                "or another --out folder."
            )
        while line := self._next():
            yield line

    def _pass_over(self, count: int) -> int:
        mark = 0
        while self._count < count and (line := self._next()):
            mark = line.mark
        return mark

    def _next(self) -> SourceLine | None:
        line = self._held.popleft() if self._held else next(self._lines, None)
        self._count += line is not None
        return line

    def progress(self) -> tuple[int, int | None]:
        """Lines read; how many there will be is not known."""
        return self._count, None


def split(stream: IO[bytes], limit: int, skip: int = 0, *, checksum: bool = False) -> Iterator[SourceLine]:
    """Yield a stream's lines from ordinal ``skip`` on; of one over ``limit`` bytes only the rest is read over."""
    mark = 0
    readline = stream.readline
    for ordinal in count():
        data = readline(limit + 1)
        if not data:
            return
        if checksum:
            mark = zlib.crc32(data, mark)
        if not ordinal:
            refuse_utf16(data)
            data = data.removeprefix(b"\xef\xbb\xbf")
        if len(data) > limit and not data.endswith(b"\n"):
            mark = _read_over(stream, limit, mark, checksum)
            if ordinal >= skip:
                yield SourceLine(ordinal, None, mark)
        elif ordinal >= skip:
            yield SourceLine(ordinal, data.rstrip(b"\r\n"), mark)


def _read_over(stream: IO[bytes], limit: int, mark: int, checksum: bool) -> int:
    while rest := stream.readline(limit):
        mark = zlib.crc32(rest, mark) if checksum else mark
        if rest.endswith(b"\n"):
            break
    return mark


def refuse_utf16(start: bytes) -> None:
    """Say plainly that a file is UTF-16, rather than make every line a dead letter.

    Raises:
        InputInvalid: the bytes begin with a UTF-16 byte order mark.
    """
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputInvalid("The source is UTF-16. Convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 OLD > NEW")


def decompressed(raw: BinaryIO | IO[bytes], suffix: str) -> IO[bytes]:
    """Return the stream as it was before compression; reading it raises Truncated where the file is cut or corrupt."""
    if suffix == ".gz":
        return cast("IO[bytes]", io.BufferedReader(_GzipReader(raw), _BUFFER))
    if suffix == ".zst":
        return cast("IO[bytes]", io.BufferedReader(_ZstdReader(raw), _BUFFER))
    return raw


class _GzipReader(io.RawIOBase):
    """gzip, with its three ways to fail made one."""

    def __init__(self, raw: BinaryIO | IO[bytes]) -> None:
        self._file = gzip.GzipFile(fileobj=raw, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        try:
            return self._file.readinto1(buffer)  # type: ignore[arg-type]  # typeshed: RawIOBase takes any buffer
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            raise Truncated(str(exc)) from exc


class _ZstdReader(io.RawIOBase):
    """Zstandard frames one after another. The library's own reader takes a cut file for a finished one."""

    def __init__(self, raw: BinaryIO | IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._fresh = True
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer)  # type: ignore[arg-type]  # typeshed: RawIOBase takes any buffer
        while not self._ready:
            data = self._raw.read(128 * 1024)
            if not data:
                if self._fresh:
                    return 0
                raise Truncated("the file ended inside a Zstandard frame")
            self._ready = memoryview(self._decompress(data))
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, data: bytes) -> bytes:
        output_rows = []
        try:
            while data:
                output_rows.append(self._frame.decompress(data))
                self._fresh = self._frame.eof
                data = self._frame.unused_data if self._fresh else b""
                if self._fresh:
                    self._frame = zstandard.ZstdDecompressor().decompressobj()
        except zstandard.ZstdError as exc:
            raise Truncated(str(exc)) from exc
        return b"".join(output_rows)
