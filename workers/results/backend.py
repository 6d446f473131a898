"""Celery's Redis result back end; inside the asyncio pool it blocks nothing, and is patient.

A result is paid for: it is stored however long the back end is away. Celery can wait for it too, but reads, writes and
sleeps in the calling thread, which in the asyncio pool is the loop's own: answers on their way would be read too late.
Elsewhere (a web application that waits for a result) Celery's own behaviour stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from celery.backends.redis import RedisBackend
from kombu.exceptions import DecodeError

from penstock.config.errors import FormatTooNew
from penstock.workers.pool.loop import off_the_loop, running_in_pool, wait

SCHEME = "penstock.workers.results.backend:Backend"


def backend_url(url: str) -> str:
    """Return the URL under which Celery finds this back end, for ``redis://`` and its kin."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() not in ("redis", "rediss", "redis+socket"):
        return url
    return f"{SCHEME}+{'socket' if scheme.lower() == 'redis+socket' else scheme.lower()}://{rest}"


class Backend(RedisBackend):
    """See the module."""

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

    def ensure(self, fun: Callable[..., Any], args: Any, **policy: Any) -> Any:
        """Call ``fun`` until it works."""
        if running_in_pool():
            return self._ensure_retryable(fun, *args)
        return super().ensure(fun, args, **policy)

    def get(self, key: Any) -> Any:
        """Return what is stored, None where nothing is."""
        if running_in_pool():
            return self._ensure_retryable(lambda: wait(_stored().read(key)))
        return super().get(key)

    def _set(self, key: Any, value: Any, expires: int | None = None) -> None:
        if running_in_pool():
            wait(_stored().write(key, value, self.expires if expires is None else expires))
        else:
            super()._set(key, value, *(() if expires is None else (expires,)))  # Celery before 5.7 knows no third

    def on_chord_part_return(self, request: Any, state: Any, result: Any, **options: Any) -> Any:
        """Count a chord's part, as Celery does; in the pool without holding up the loop."""
        return off_the_loop(super().on_chord_part_return, request, state, result, **options)

    def decode(self, payload: Any) -> Any:
        """Decode what is stored.

        Raises:
            ResultTooNew: a newer version stored it; kombu would hide that behind an error of its own.
        """
        try:
            return super().decode(payload)
        except DecodeError as exc:
            if isinstance(exc.__context__, FormatTooNew):
                raise exc.__context__ from None
            raise


def _stored() -> Any:
    """Return what reads and writes in the pool: that needs much which nobody needs who only waits for results."""
    from penstock.workers.results import stored

    return stored
