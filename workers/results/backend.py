"""Celery's Redis result back end; inside the asyncio pool it blocks nothing, and is patient.

A result is paid for: it is stored however long the back end is away. Celery can wait for it too, but reads, writes and
sleeps in the calling thread, which in the asyncio pool is the loop's own: answers on their way would be read too late.
Elsewhere (a web application that waits for a result) Celery's own behaviour stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kombu.serialization
from celery._state import task_join_will_block
from celery.backends.redis import RedisBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError

from penstock.workers.pool.loop import off_the_loop, on_the_loop, running_in_pool, wait
from penstock.workers.results.places import TwoPlaces, TwoPlacesConsumer
from penstock.workers.results.serializers import is_ours, read_ours
from penstock.workers.senders import sent_by_others

OURS, PLAIN = "penstock.workers.results.backend:Backend", "penstock.workers.results.backend:PlainBackend"
NO_WORKER = (
    "The operation timed out: no worker is alive. The task waits in the broker until one is: start `penstock worker` "
    "on the same broker"
)
_KEYS = ("task_keyprefix", "group_keyprefix", "chord_keyprefix")


def backend_url(url: str, backend: str = OURS) -> str:
    """Return the URL under which Celery finds a back end of this module, for ``redis://`` and its kin."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() not in ("redis", "rediss", "redis+socket"):
        return url
    return f"{backend}+{'socket' if scheme.lower() == 'redis+socket' else scheme.lower()}://{rest}"


class PoolConsumer(TwoPlacesConsumer):
    """Listens for results, but not of what a task on the loop sends on (the rest of its canvas): it may not wait."""

    def consume_from(self, task_id: str) -> None:
        """Listen for a task's result from now on."""
        if not on_the_loop():
            super().consume_from(task_id)

    def cancel_for(self, task_id: str) -> None:
        """Listen no more."""
        if not on_the_loop():
            super().cancel_for(task_id)


class Backend(TwoPlaces):
    """See the module. What is for an app that does not read ours, it leaves to that of the ``PlainApp``."""

    ResultConsumer = PoolConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        prefix = (self.app.conf.result_backend_transport_options or {}).get("global_keyprefix") or ""
        for name in _KEYS:  # Celery before 5.7 puts an underscore after the prefix
            setattr(self, name, self.key_t(prefix + getattr(RedisBackend, name)))

    def plain(self, request: Any) -> Any:
        """Return the back end for a task whose sender does not read ours, None for any other."""
        return self.app.plain.backend if sent_by_others(request) else None

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """Store a result where its sender looks for it; in both places where nobody knows who that is."""
        plain = self.plain(request)
        if plain is None and request is None:
            self.app.plain.backend.store_result(task_id, result, state, traceback, **options)
        store = super().store_result if plain is None else plain.store_result
        return store(task_id, result, state, traceback, request=request, **options)

    @property
    def always_retry(self) -> bool:
        """Whether to try again until it works: for work that is paid for."""
        return running_in_pool()

    @always_retry.setter
    def always_retry(self, value: bool) -> None:
        """Celery sets it from its own configuration."""

    def _sleep(self, amount: float) -> None:
        if running_in_pool():
            wait(asyncio.sleep(amount))
        else:
            time.sleep(amount)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Listen for a task's result before it is sent."""
        if not task_join_will_block():
            self.result_consumer.consume_here(task_id)

    def ensure(self, fun: Callable[..., Any], args: Any, **policy: Any) -> Any:
        """Call ``fun`` until it works."""
        if running_in_pool():
            return self._ensure_retryable(fun, *args)
        return super().ensure(fun, args, **policy)

    def _wait_for_pending(self, result: Any, timeout: float | None = None, **options: Any) -> Iterator[None]:
        """Wait for a result, as Celery does; a time-out says so where no worker is there that could do the task."""
        try:
            yield from super()._wait_for_pending(result, timeout=timeout, **options)
        except CeleryTimeoutError as exc:
            check = None if running_in_pool() else getattr(self.app, "sender_check", None)
            if check is None or not check.no_worker_alive():
                raise
            raise CeleryTimeoutError(NO_WORKER) from exc

    def get_here(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Return what is stored under these very keys."""
        if running_in_pool():
            found: Sequence[Any] = self._ensure_retryable(lambda: wait(_stored().read(keys)))
            return found
        return super().get_here(keys)

    def _set(self, key: Any, value: Any, expires: int | None = None) -> None:
        if running_in_pool():
            wait(_stored().write(key, value, self.expires if expires is None else expires))
        else:
            super()._set(key, value, *(() if expires is None else (expires,)))  # Celery before 5.7 knows no third

    def on_chord_part_return(self, request: Any, state: Any, result: Any, **options: Any) -> Any:
        """Count a chord's part, as Celery does; in the pool without holding up the loop."""
        plain = self.plain(request)
        count = super().on_chord_part_return if plain is None else plain.on_chord_part_return
        return off_the_loop(count, request, state, result, **options)

    def decode(self, payload: Any) -> Any:
        """Decode what is stored, whosever format it is in. Raises ResultTooNew: a newer version stored it."""
        if payload is None:
            return None
        if is_ours(payload):
            return read_ours(payload)
        return kombu.serialization.loads(payload, "application/json", "utf-8", accept={"application/json"})


class PlainBackend(Backend):
    """Stores as any Celery app does: JSON, under Celery's usual keys."""

    def plain(self, request: Any) -> Any:
        """Return None: it is this one."""
        return None

    def store_result(self, *args: Any, **options: Any) -> Any:
        """Store a result."""
        return super(Backend, self).store_result(*args, **options)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: nobody waits here for what another app's task gives."""


def _stored() -> Any:
    """Return what reads and writes in the pool: that needs much which nobody needs who only waits for results."""
    from penstock.workers.results import stored

    return stored
