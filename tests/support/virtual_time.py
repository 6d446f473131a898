"""A clock that costs nothing: an event loop that leaps over all waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")
START_S = 1_000_000.0


class _Leap(selectors.DefaultSelector):
    """Waits for nothing: the clock leaps to the next timer instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_S

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and for no time"
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own, in seconds, which leaps over all waiting."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call it here and now: a thread would run on a clock of its own."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future


def hold_up(seconds: float) -> None:
    """Let virtual time pass in which the running loop does nothing, as if a callback of it blocked."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._leap.now += seconds


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock, which lanes take for the process's own as well."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        clock = SimpleNamespace(monotonic=runner.get_loop().time)
        with patch("penstock.workers.lanes.lane.time", clock), patch("penstock.workers.lanes.fair_queue.time", clock):
            return runner.run(work)
