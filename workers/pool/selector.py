"""Waits to the microsecond.

``epoll`` counts its time-out in whole milliseconds, rounded up, so that asyncio's timers are late by up to one, each
time by another part of it. A lane's requests are to come at even distances: where a server allows no burst, a request
that comes a millisecond too early is refused.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import sys

#: File descriptors that ``select`` can watch are below this (``FD_SETSIZE``).
SELECTABLE = 1024


def new_selector_loop() -> asyncio.AbstractEventLoop:
    """Return one of asyncio's own event loops, with fine timers where its own are coarse."""
    if sys.platform == "linux":
        return asyncio.SelectorEventLoop(FineSelector())
    return asyncio.new_event_loop()


if sys.platform == "linux":

    class FineSelector(selectors.EpollSelector):
        """``epoll``, whose own descriptor is watched by ``select``: that takes microseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Return what is ready; wait ``timeout`` seconds for it, for ever with None, not at all from 0 down."""
            if timeout is not None and timeout > 0 and self.fileno() < SELECTABLE:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)
