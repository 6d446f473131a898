"""Waiting for asyncio from synchronous code: one loop a process, in a thread of its own.

``wait`` is the whole of what task bodies need. In the asyncio pool it suspends the task's greenlet: no thread is held,
and hundreds of tasks wait on one loop. Everywhere else (a prefork child, an eager task, a direct call) it blocks the
calling thread. Either way the awaitable runs on the process's one loop, so that clients bound to a loop are shared.

It knows nothing of Celery.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import importlib
import inspect
import logging
import os
import threading
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from penstock.workers.pool.selector import new_selector_loop

T = TypeVar("T")

logger = logging.getLogger(__name__)

STOP_S = 5.0
#: Blocking calls of tasks on the loop that are made at a time.
BLOCKING_CALLS = 32


def wait(awaitable: Awaitable[T]) -> T:
    """Return what ``awaitable`` gives, or raise what it raises, from synchronous code.

    Raises:
        RuntimeError: called on the loop itself, by a coroutine or callback: use ``await`` there.
        asyncio.CancelledError: the task was revoked or stopped while it waited.
    """
    here = getcurrent()
    if isinstance(here, _Carrier):
        value: T = here.suspend(awaitable)
        return value
    thread = process_loop()
    if thread.is_current():
        _discard(awaitable)
        raise RuntimeError("wait() was called on the event loop's own thread: use await in coroutines and callbacks")
    return thread.run(awaitable, getattr(_of_thread, "interruption", None))


def running_in_pool() -> bool:
    """Whether the caller is a task's body in the asyncio pool, so that ``wait`` uses the pool's loop."""
    return isinstance(getcurrent(), _Carrier) or hasattr(_of_thread, "interruption")


def on_the_loop() -> bool:
    """Whether the caller is in the loop's thread, where it holds up all others when it blocks. Also at exit."""
    return _current is not None and _current.is_current()


def off_the_loop(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function that blocks: from a task's body on the loop in a thread, while others go on; else right here."""
    if isinstance(getcurrent(), _Carrier):
        return wait(asyncio.get_running_loop().run_in_executor(_blocking_calls(), _in_context(function, args, kwargs)))
    return function(*args, **kwargs)


def _in_context(function: Callable[..., T], args: Any, kwargs: Any) -> Callable[[], T]:
    context = copy_context()
    context.run(_identity.set, identity())  # it is part of the task that waits for it
    return partial(context.run, function, *args, **kwargs)


@cache
def _blocking_calls() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(BLOCKING_CALLS, "penstock-blocking")


def at_close(callback: Callable[[], Awaitable[object]]) -> None:
    """Have ``callback`` awaited before the running loop closes; call it on the loop.

    For clients bound to the loop. Loops that are not this module's are left to their owners.
    """
    owner = _owners.get(asyncio.get_running_loop())
    if owner is not None:
        owner.closers.append(callback)


def heed_cancellation() -> None:
    """Raise a cancellation that was lost: ``asyncio.wait_for``, which redis-py uses, may swallow one before 3.12."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Wake:
    """Has something done on a loop soon, from any thread; asked for many times before it is, it is done once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self._loop, self._callback, self._due = loop, callback, False

    def __call__(self) -> None:
        """Ask for it. Where the loop has been closed nothing is done."""
        if not self._due:
            self._due = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._due = False  # first: what is asked for from now on is seen by another run
        self._callback()


class Interruption:
    """A way to raise an exception inside what a task is awaiting, at its ``await``."""

    def __init__(self) -> None:
        self.killed = False
        self._task: asyncio.Task[Any] | None = None
        self._exception: BaseException | None = None

    def bind(self, task: asyncio.Task[Any] | None) -> None:
        """Say which asyncio task does the awaiting. On the loop."""
        self._task = task
        if task is not None and self.killed:
            task.cancel()

    def interrupt(self, exception: Exception) -> None:
        """Raise ``exception`` at the await. On the loop."""
        if self._task is not None and not self._task.done() and not self.killed:
            self._exception = exception
            self._task.cancel()

    def kill(self) -> None:
        """Cancel what is awaited, now and ever after. On the loop."""
        self.killed = True
        if self._task is not None:
            self._task.cancel()

    def take(self) -> BaseException | None:
        """Return the exception that a cancellation stands for, None if it is a cancellation indeed."""
        exception, self._exception = self._exception, None
        if self.killed or exception is None:
            return None
        if self._task is not None:
            self._task.uncancel()
        return exception


class LoopThread:
    """An asyncio loop (uvloop's, where that is installed) in a daemon thread."""

    def __init__(self, name: str) -> None:
        self.closers: list[Callable[[], Awaitable[object]]] = []
        self.loop = _new_loop()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.pid = os.getpid()
        _owners[self.loop] = self
        started = threading.Event()
        self.loop.call_soon(started.set)
        self.thread.start()
        started.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    def is_current(self) -> bool:
        """Whether the caller runs in this loop's thread."""
        return threading.current_thread() is self.thread

    def run(self, awaitable: Awaitable[T], interruption: Interruption | None = None) -> T:
        """Run it on the loop, from another thread, and block until it is done."""
        context = copy_context()
        context.run(_identity.set, identity())  # what is awaited is part of the task that waits, in this thread or that
        future = context.run(asyncio.run_coroutine_threadsafe, _awaited(awaitable, interruption), self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if interruption is not None and interruption.killed:
                raise asyncio.CancelledError from None
            raise _cancelled_by_another() from None
        except BaseException:  # a time limit's signal, Ctrl-C: nobody is there any more to take the answer
            future.cancel()
            raise

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Cancel what still runs, await the closers, end the thread. False if it does not end in time."""
        if not self.thread.is_alive() or self.pid != os.getpid():
            return True
        closing = asyncio.run_coroutine_threadsafe(self._close(), self.loop)
        with contextlib.suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            closing.result(timeout_s)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout_s)
        return not self.thread.is_alive()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for callback in reversed(self.closers):
            try:
                await callback()
            except Exception:
                logger.exception("a clean-up at the end of the event loop failed")
        await self.loop.shutdown_asyncgens()


class _Identity:
    """Stands for a task. It holds nothing: contexts are copied into callbacks that may outlive the task."""

    __slots__ = ("__weakref__",)


_identity: ContextVar[object | None] = ContextVar("penstock_task", default=None)


class _Carrier(greenlet):
    """A greenlet in which a synchronous function runs on the loop, and is set aside while it waits."""

    def __init__(self, function: Callable[[], Any], interruption: Interruption) -> None:
        super().__init__(function, getcurrent())
        self.interruption = interruption
        # The same context for the body and for what it awaits, as if both were one coroutine.
        self.gr_context = getattr(self.parent, "gr_context", None)

    def suspend(self, awaitable: Awaitable[Any]) -> Any:
        loop_greenlet = self.parent
        assert loop_greenlet is not None
        return loop_greenlet.switch(awaitable)


async def carry(function: Callable[[], T], interruption: Interruption) -> T:
    """Run ``function`` on the running loop; whenever it calls ``wait``, the loop goes on with others meanwhile."""
    interruption.bind(asyncio.current_task())
    carrier = _Carrier(function, interruption)
    _identity.set(_Identity())
    try:
        asked = carrier.switch()
        while not carrier.dead:
            try:
                answer = await _Interruptible(asked, interruption)
            except BaseException as exc:
                asked = carrier.throw(type(exc), exc, exc.__traceback__)
            else:
                asked = carrier.switch(answer)
    finally:
        interruption.bind(None)
    result: T = asked
    return result


def identity() -> object:
    """Return what stands for the running task, to code that keys its state by greenlet.

    A task's body and the coroutines that it awaits are one; outside of tasks it is the greenlet.
    """
    return _identity.get() or getcurrent()


class _Interruptible(Generic[T]):
    """Awaits something, and turns a cancellation into the exception that it stands for."""

    def __init__(self, awaitable: Awaitable[T], interruption: Interruption) -> None:
        self.awaitable, self.interruption = awaitable, interruption

    def __await__(self) -> Generator[Any, Any, T]:
        interruption = self.interruption
        if interruption.killed:
            _discard(self.awaitable)
            raise asyncio.CancelledError
        try:
            answer = yield from _driven(_coroutine(self.awaitable), interruption)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if interruption.killed or (task is not None and task.cancelling()):
                raise
            # Nobody cancelled this task: what it awaited was cancelled. For the task that is a failure.
            raise _cancelled_by_another() from None
        if interruption.killed:  # it swallowed its cancellation
            raise asyncio.CancelledError
        return answer


def _driven(coroutine: Coroutine[Any, Any, T], interruption: Interruption) -> Generator[Any, Any, T]:
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            asked = step(value)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        try:
            value = yield asked
            step = coroutine.send
        except asyncio.CancelledError as exc:
            value, step = interruption.take() or exc, coroutine.throw
        except BaseException as exc:
            value, step = exc, coroutine.throw


async def _awaited(awaitable: Awaitable[T], interruption: Interruption | None) -> T:
    if interruption is None:
        return await awaitable
    interruption.bind(asyncio.current_task())
    try:
        return await _Interruptible(awaitable, interruption)
    finally:
        interruption.bind(None)


def _coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    if isinstance(awaitable, types.CoroutineType):
        return awaitable
    return _awaited(awaitable, None)


def _discard(awaitable: Awaitable[Any]) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def _cancelled_by_another() -> RuntimeError:
    return RuntimeError("what this task was waiting for was cancelled by something else than its revocation")


# The process's loop ------------------------------------------------------------------------------------------------

_owners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopThread] = weakref.WeakKeyDictionary()
_current: LoopThread | None = None
_lock = threading.Lock()


def process_loop() -> LoopThread:
    """Return this process's loop, started on first use; a forked child has its own."""
    global _current, _lock
    if _current is not None and _current.pid == os.getpid() and _current.thread.is_alive():
        return _current
    if _current is not None and _current.pid != os.getpid():
        _lock = threading.Lock()  # another thread of the parent may have held it
    with _lock:
        if _current is None or _current.pid != os.getpid() or not _current.thread.is_alive():
            _current = LoopThread("penstock-loop")
        return _current


@atexit.register
def close_process_loop() -> None:
    """Close this process's loop, if there is one; the next ``wait`` starts another."""
    global _current
    thread, _current = _current, None
    if thread is not None:
        thread.stop()


def _new_loop() -> asyncio.AbstractEventLoop:
    with contextlib.suppress(ImportError):
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop
    return new_selector_loop()


class _OfThread(threading.local):
    """``interruption`` is set in a pool's threads while they run a task."""

    interruption: Interruption


_of_thread = _OfThread()


@contextlib.contextmanager
def interruptible_thread(interruption: Interruption) -> Iterator[None]:
    """Let ``wait`` in this thread be interrupted, inside the block."""
    _of_thread.interruption = interruption
    try:
        yield
    finally:
        del _of_thread.interruption
