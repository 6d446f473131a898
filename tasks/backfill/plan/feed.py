"""Reads, cuts and plans ahead in a thread of its own, so that the run never waits for the source."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from penstock.tasks.backfill.plan.batch import Plan

PLANS_AHEAD = 64
BYTES_AHEAD = 16 * 1024 * 1024


class Feed:
    """Plans, made ahead: up to a count, and up to so many bytes of text.

    Args:
        plans: makes them; run in the thread, which it keeps until it ends or ``stop``.
    """

    def __init__(self, plans: Iterator[Plan]) -> None:
        self._ready: deque[Plan | BaseException] = deque()
        self._bytes = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, args=(plans,), name="backfill-feed", daemon=True)
        self.finished = False

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def starved(self) -> bool:
        """Whether nothing is ready: the run takes faster than the source gives."""
        return not self._ready

    def take(self) -> Plan | None:
        """Return the next plan if one is ready. Raises what the source raised."""
        with self._changed:
            if not self._ready:
                return None
            plan = self._ready.popleft()
            if isinstance(plan, BaseException):
                raise plan
            self._bytes -= plan.batch.size if plan.batch is not None else 0
            self._changed.notify()
        self.finished = plan.last
        return plan

    def stop(self) -> None:
        """End the reading. A thread that waits for a silent standard input is left behind: it ends with us."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout=2.0)

    def _work(self, plans: Iterator[Plan]) -> None:
        try:
            for plan in plans:
                with self._changed:
                    if not self._wait_for_room():
                        return
                    self._ready.append(plan)
                    self._bytes += plan.batch.size if plan.batch is not None else 0
        except BaseException as exc:
            with self._changed:
                if self._wait_for_room():
                    self._ready.append(exc)

    def _wait_for_room(self) -> bool:
        """Wait until there is room, False when nothing more is wanted."""
        self._changed.wait_for(lambda: self._stopped or self._has_room())
        return not self._stopped

    def _has_room(self) -> bool:
        return not self._ready or (len(self._ready) < PLANS_AHEAD and self._bytes < BYTES_AHEAD)
