"""A Celery pool on one asyncio loop: ``celery worker -P custom`` with hundreds of tasks in flight and no thread each.

Each task is run by Celery's own tracer, in a greenlet on the loop (``penstock.workers.pool.loop``): signals, states,
retries, chords, ``Reject`` and ``Ignore`` are Celery's. When the body waits (``wait(awaitable)``, or an ``async def``
task) its greenlet is set aside, and others go on. Tasks that say nothing of themselves, or ``blocking = True``, run
in a few threads instead, so that a body that sleeps or computes does not hold up the loop; ``blocking = False``
promises to do neither.

Time limits and revocation reach a task at its ``await``. What computes in a thread cannot be stopped, as in Celery's
threads pool: its task fails in time, the thread goes on. The prefork pool is for such work.

Celery's threads pool is the model for what its worker expects of a pool: callbacks come from another thread than the
worker's main one.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from celery import _state
from celery.concurrency.base import BasePool
from celery.worker import state as worker_state

from penstock.workers.pool import loop as loops
from penstock.workers.pool.job import PoolJob, Threads

logger = logging.getLogger(__name__)

MAX_THREADS = 16
# How long tasks may take to end once they are cancelled.
GRACE_S = 5.0
_POLL_S = 0.05


class TaskPool(BasePool):
    """The pool. But for a job's arrival, everything that changes a job, or counts jobs, happens on the loop."""

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hub: Any = None
        self._thread: loops.LoopThread | None = None
        self._fill_soon: Callable[[], None] = _nothing
        self._waiting: deque[PoolJob] = deque()
        self._running: set[PoolJob] = set()
        self._threads = Threads(min(self.limit, MAX_THREADS))
        self._done = 0

    # What Celery calls -------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the loop, and let Celery tell tasks on it apart."""
        self._thread = loops.process_loop()
        self._fill_soon = loops.Wake(self._thread.loop, self._fill)
        _state._task_stack.__ident_func__ = loops.identity
        for task in self.app.tasks.values() if self.app else ():
            task.request_stack.__ident_func__ = loops.identity

    def register_with_event_loop(self, hub: Any) -> None:
        """Remember the worker's event loop: it is kept going while a shutdown waits for tasks."""
        self._hub = hub

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> PoolJob:
        """Take a task; it starts at once, unless as many as the concurrency are in flight."""
        job = PoolJob(target, args, kwargs or {}, options, self._limits(options), self._blocks(args))
        if self._state == self.RUN:
            self._waiting.append(job)
            self._fill_soon()
        return job

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Nothing: tasks share one process; Celery also calls the ``PoolJob`` itself."""

    def grow(self, n: int = 1) -> None:
        """Raise the concurrency."""
        self.limit += n
        self._fill_soon()

    def shrink(self, n: int = 1) -> None:
        """Lower the concurrency; tasks in flight are left to end."""
        if n >= self.limit:
            raise ValueError(f"cannot shrink by {n}: the concurrency is {self.limit}")
        self.limit -= n

    def on_close(self) -> None:
        """From now on nothing is started."""
        self._call_on_loop(self._waiting.clear)  # their messages were never acknowledged: they go back to their queues

    def on_stop(self) -> None:
        """Wait for what is in flight; in a cold shutdown, cancel it. Called again by Celery's signal handlers."""
        self._state = self.CLOSE
        self._call_on_loop(self._waiting.clear)
        while self._running and not worker_state.should_terminate:
            self._tend_worker()
        self._end()

    def on_terminate(self) -> None:
        """Cancel what is in flight."""
        self._end()

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "processes": [os.getpid()],
            "in-flight": len(self._running),
            "waiting": len(self._waiting),
            "done": self._done,
            "threads": len(self._threads),
            "timeouts": [self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0],
            "event-loop": type(self._thread.loop).__module__ if self._thread else None,
        }

    # On the loop ---------------------------------------------------------------------------------------

    def _fill(self) -> None:
        assert self._thread is not None
        while self._waiting and len(self._running) < self.limit and self._state == self.RUN:
            job = self._waiting.popleft()
            self._running.add(job)
            task = self._thread.loop.create_task(job.run(self._threads))
            task.add_done_callback(partial(self._finished, job))

    def _finished(self, job: PoolJob, _: Any) -> None:
        self._running.discard(job)
        self._done += 1
        if self._waiting:
            self._fill()
        elif not self._running and self._state != self.RUN and self._hub is not None:
            self._hub.call_soon(_nothing)  # wakes ``_tend_worker``

    def _kill_all(self) -> None:
        for job in list(self._running):
            job.kill()

    # In the worker's main thread -----------------------------------------------------------------------

    def _call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the worker is at its end, the message goes back
            if self._thread is not None:
                self._thread.loop.call_soon_threadsafe(call, *args)

    def _limits(self, options: dict[str, Any]) -> tuple[float | None, float | None]:
        soft = options.get("soft_timeout") or self.options.get("soft_timeout")
        hard = options.get("timeout") or self.options.get("timeout")
        return soft or None, hard or None

    def _blocks(self, args: tuple[Any, ...]) -> bool:
        task = self.app.tasks.get(args[0]) if self.app and args and isinstance(args[0], str) else None
        return bool(getattr(task, "blocking", True))

    def _tend_worker(self) -> None:
        """Keep the worker's event loop going for a moment: acknowledgements, heartbeats, timers, broker renewals."""
        if self._hub is None:
            time.sleep(_POLL_S)
            return
        try:
            self._hub.run_once()
        except Exception as exc:
            logger.warning("the broker's connection failed while tasks are finished: %s", exc)
            self._hub = None

    def _end(self) -> None:
        thread = self._thread
        if thread is None or not thread.thread.is_alive():
            return
        end = time.monotonic() + GRACE_S
        self._call_on_loop(self._kill_all)
        while any(job.ends_when_killed for job in list(self._running)) and time.monotonic() < end:
            time.sleep(0.005)
        if self._running:
            logger.warning("%d tasks did not end when cancelled", len(self._running))
        self._threads.close()
        loops.close_process_loop()
        self._thread = None


def _nothing() -> None:
    """What is called for the sake of waking the worker's event loop."""
