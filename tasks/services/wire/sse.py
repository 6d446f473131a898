"""An incremental decoder of server-sent events (WHATWG HTML, section 9.2): bytes in, split anywhere, events out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One event: its type (``message`` unless the server names it) and its data, lines joined by newlines."""

    data: str
    event: str = "message"


class SseDecoder:
    """Decodes one stream. Comments, ``id`` and ``retry`` are passed over; CR, LF and CRLF all end a line."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[str] = []
        self._event = ""

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that ``data`` completes."""
        self._rest += data
        for line in self._lines():
            if event := self._take(line):
                yield event

    def flush(self) -> Event | None:
        """Return the event that the end of the stream left without its blank line, if any.

        The standard drops it; a server that ends with ``data: [DONE]`` and no newline has ended all the same.
        """
        last, self._rest = bytes(self._rest).rstrip(b"\r\n"), bytearray()
        if last:
            self._take(last)
        return self._dispatch()

    def _lines(self) -> Iterator[bytes]:
        """Take whole lines off the buffer. A CR at its end waits, for the LF of a CRLF may follow."""
        start = 0
        rest = self._rest
        while (end := _line_end(rest, start)) >= 0:
            if rest[end] == 0x0D and end + 1 == len(rest):
                break
            yield bytes(rest[start:end])
            start = end + (2 if rest[end : end + 2] == b"\r\n" else 1)
        del rest[:start]

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        line = line.removeprefix(_BOM)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Event | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        return Event("\n".join(data), event or "message") if data else None


def _line_end(buffer: bytearray, start: int) -> int:
    """The first CR or LF at or after ``start``, -1 if there is none."""
    feed = buffer.find(b"\n", start)
    carriage = buffer.find(b"\r", start, feed if feed >= 0 else len(buffer))
    return carriage if carriage >= 0 else feed
