"""One task's run in the asyncio pool: accepted, traced by Celery, limited in time, reported."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError, WorkerShutdown, WorkerTerminate
from celery.worker import state as worker_state

from penstock.workers.pool.loop import Interruption, carry, interruptible_thread

logger = logging.getLogger(__name__)

Report = tuple[Callable[[Any], None], Any]


class PoolJob(Interruption):
    """A task handed to the pool. Celery's request holds a weak reference to it, to terminate it.

    Args:
        target: Celery's tracer; ``args`` and ``kwargs`` are for it.
        callbacks: what Celery passes to a pool: ``accept_callback``, ``callback``, ``error_callback``,
            ``timeout_callback``.
        limits: soft and hard time limit in seconds, None for none.
        blocking: run it in a thread.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        callbacks: dict[str, Any],
        limits: tuple[float | None, float | None],
        blocking: bool,
    ) -> None:
        super().__init__()
        self._call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = (target, args, kwargs)
        self._callbacks = callbacks
        self._soft, self._hard = limits
        self._blocking = blocking
        self._abandoned = False
        self._timed_out: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def terminate(self, signal: Any = None) -> None:
        """Revoke it, from any thread. Celery announces it; what it still gives is dropped."""
        self.killed = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.kill)

    async def run(self, threads: Threads) -> None:
        """Run it to its end and report. Never raises."""
        self._loop = asyncio.get_running_loop()
        if self.killed:
            return
        self._report((self._accept, None))
        timers: list[asyncio.TimerHandle] = []
        try:
            if self.killed:  # it was revoked before it began
                return
            self._start_timers(timers)
            if self._blocking:
                self._report(await threads.run(self._in_thread))
            else:
                self._report(await carry(self._trace, self))
        except asyncio.CancelledError:
            logger.info("a task is left behind in its thread; its message goes back to its queue")
        except BaseException:
            logger.exception("a task's run broke down")
            self._report((self._callbacks["error_callback"], ExceptionInfo()))
        finally:
            for timer in timers:
                timer.cancel()
            if self._timed_out is not None:
                await self._timed_out
            self._call = None  # the request may outlive this, its texts need not

    @property
    def ends_when_killed(self) -> bool:
        """Whether cancelling it can end it: what computes in a thread cannot be stopped."""
        return not self._blocking or self._task is not None

    def _accept(self, _: Any) -> None:
        self._callbacks["accept_callback"](os.getpid(), time.monotonic())

    def _in_thread(self) -> Report:
        with interruptible_thread(self):
            return self._trace()

    def _trace(self) -> Report:
        assert self._call is not None
        target, args, kwargs = self._call
        try:
            return self._callbacks["callback"], target(*args, **kwargs)
        except Exception:
            return self._callbacks["error_callback"], ExceptionInfo()
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError) and self.killed:
                return _drop, None
            return self._callbacks["error_callback"], _lost(exc)

    def _report(self, report: Report) -> None:
        if self._abandoned or self.killed:
            return
        callback, value = report
        try:
            callback(value)
        except Exception:
            logger.exception("reporting a task's outcome failed")

    # Time limits -------------------------------------------------------------------------------------

    def _start_timers(self, timers: list[asyncio.TimerHandle]) -> None:
        assert self._loop is not None
        if self._soft and not (self._hard and self._hard <= self._soft):
            timers.append(self._loop.call_later(self._soft, self._on_soft_limit))
        if self._hard:
            timers.append(self._loop.call_later(self._hard, self._on_hard_limit))

    def _on_soft_limit(self) -> None:
        self._report((lambda _: self._callbacks["timeout_callback"](True, self._soft), None))
        self.interrupt(SoftTimeLimitExceeded())

    def _on_hard_limit(self) -> None:
        if not self._abandoned and not self.killed:
            assert self._loop is not None
            self._timed_out = self._loop.create_task(self._report_timeout())
        self._abandoned = True
        self.kill()

    async def _report_timeout(self) -> None:
        """Have Celery store the failure: in a greenlet, so that the loop goes on meanwhile."""
        try:
            await carry(lambda: self._callbacks["timeout_callback"](False, self._hard), Interruption())
        except Exception:
            logger.exception("reporting a task's time limit failed")


class Threads:
    """A few daemon threads for bodies that block. Unlike an executor's they do not keep a process from ending."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def __len__(self) -> int:
        return len(self._threads)

    async def run(self, call: Callable[[], Report]) -> Report:
        """Run ``call``, which never raises, in a thread; wait for a free one if all are busy."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Report] = loop.create_future()

        def work() -> None:
            result = call()
            try:
                loop.call_soon_threadsafe(_settle, future, result)
            except RuntimeError:  # the loop did not wait for us
                logger.warning("a task ended after its worker")

        self._calls.put(work)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"penstock-task-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return await future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call
            self._idle.release()

    def close(self) -> None:
        """Let idle threads end."""
        for _ in self._threads:
            self._calls.put(None)


def _settle(future: asyncio.Future[Report], result: Report) -> None:
    if not future.done():
        future.set_result(result)


def _drop(_: Any) -> None:
    """What becomes of the outcome of a task that was revoked: Celery has announced its end already."""


def _lost(exc: BaseException) -> Any:
    """Report an exception that no task should raise as Celery's pools do: as a lost worker. Shutdowns are obeyed."""
    if isinstance(exc, WorkerTerminate):
        worker_state.should_terminate = exc.code or True
    elif isinstance(exc, WorkerShutdown):
        worker_state.should_stop = exc.code or 0
    try:
        raise WorkerLostError(repr(exc)).with_traceback(sys.exc_info()[2])
    except WorkerLostError:
        return ExceptionInfo()
