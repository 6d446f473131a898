"""``stream(result)``: the deltas of a streamed completion, in any process, as they come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

from penstock.config.errors import InputInvalid
from penstock.config.names import stream_key
from penstock.config.redis import connect, connect_async, translated
from penstock.config.settings import Settings, load_settings
from penstock.tasks.completion.stream_entries import Reader, StreamEntry
from penstock.tasks.services.base import Delta
from penstock.workers.app import app
from penstock.workers.results.types import CompleteResult
from penstock.workers.runtime import state_server

#: Seconds of silence after which a look is taken at the task's state; shorter where the stream cannot go on by itself.
SILENCE_S, LOST_S = 1.0, 0.1
_AT_ONCE = 1000


class StreamTimedOut(CeleryTimeoutError, TimeoutError):
    """Nothing came for as long as the reader was willing to wait. The task goes on."""


def stream(result: AsyncResult | str, timeout: float | None = None) -> DeltaStream:
    """Return the deltas of a ``complete`` task, to be iterated with ``for`` or ``async for``.

    Who comes late reads from the start. A task that does not stream gives its whole answer as one delta a choice. When
    the worker dies and another one begins the answer anew, a delta with ``restart`` says that what came before is void.

    Args:
        result: what ``complete.delay(...)`` returned, or the task's id.
        timeout: most seconds to wait for the next delta, None for ever.

    Raises:
        CutStream: while iterating: the stream broke off; ``partial`` is the text that had come.
        InferenceFailed, LaneParked: while iterating: the task's own error.
        StreamTimedOut: while iterating; it is Celery's ``TimeoutError`` and Python's.
        BrokerUnavailable: while iterating: the broker cannot be reached.
    """
    return DeltaStream(result if not isinstance(result, str) else AsyncResult(result, app=app), timeout)


class DeltaStream:
    """A stream of deltas; every iteration begins at its start and has a connection of its own."""

    def __init__(self, result: AsyncResult, timeout: float | None = None, settings: Settings | None = None) -> None:
        self._result, self._timeout = result, timeout
        self._settings = settings or load_settings()
        self._url = state_server(self._settings)
        self._key = stream_key(self._settings.key_prefix, result.id)

    def __iter__(self) -> Iterator[Delta]:
        """Yield the deltas as they come."""
        reader, watch = Reader(), _Watch(self._timeout)
        with contextlib.closing(connect(self._url)) as client:
            while not reader.done:
                with translated(self._url):
                    found = client.xread({self._key: reader.position}, _AT_ONCE, watch.block_ms(reader))
                entries = _entries(found)
                yield from reader.take(entries)
                if not watch.heard(entries):
                    yield from self._after_silence(reader, watch)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Yield the deltas as they come."""
        reader, watch = Reader(), _Watch(self._timeout)
        client = connect_async(self._url)
        try:
            while not reader.done:
                with translated(self._url):
                    found = await client.xread({self._key: reader.position}, _AT_ONCE, watch.block_ms(reader))
                entries = _entries(found)
                for delta in reader.take(entries):
                    yield delta
                if not watch.heard(entries):
                    for delta in await asyncio.to_thread(self._after_silence, reader, watch):
                        yield delta
        finally:
            await client.aclose()

    def _after_silence(self, reader: Reader, watch: _Watch) -> list[Delta]:
        """Look whether the task has ended; what the stream lacks is in its result."""
        state = self._result.state
        if state == states.SUCCESS:
            value = self._result.result
            if not isinstance(value, CompleteResult):
                raise InputInvalid(f"task {self._result.id} is no completion: `stream` takes what `complete` returns")
            return list(reader.heal(value))
        if state in states.PROPAGATE_STATES:
            error: Any = self._result.result
            raise error if isinstance(error, BaseException) else RuntimeError(str(error))
        watch.check(self._result.id)
        return []


class _Watch:
    """How long a reader has heard nothing, and how long it waits."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._heard_at: float = time.monotonic()
        self._first = True

    def block_ms(self, reader: Reader) -> int | None:
        """Milliseconds to wait for the next entry; None does not wait: at first, for a task may have ended long ago."""
        if self._first:
            self._first = False
            return None
        silence = LOST_S if reader.lost else SILENCE_S
        if self._timeout is not None:
            silence = min(silence, max(0.001, self._timeout - (time.monotonic() - self._heard_at)))
        return max(1, round(silence * 1000))

    def heard(self, entries: list[StreamEntry]) -> bool:
        """Note whether anything came."""
        if entries:
            self._heard_at = time.monotonic()
        return bool(entries)

    def check(self, task_id: str) -> None:
        """Raise StreamTimedOut when it has been silent for too long."""
        if self._timeout is not None and time.monotonic() - self._heard_at >= self._timeout:
            raise StreamTimedOut(
                f"nothing came from task {task_id} for {self._timeout:g} s: does a worker run, and is its lane open? "
                "`penstock lanes` shows it"
            )


def _entries(found: Any) -> list[StreamEntry]:
    """Return the entries of one stream, as either version of Redis' protocol gives them."""
    if not found:
        return []
    lists = list(found.values()) if isinstance(found, dict) else [each[1] for each in found]
    return [(position, fields) for entries in lists for position, fields in _flat(entries)]


def _flat(entries: Any) -> Any:
    return entries[0] if entries and isinstance(entries[0], list) else entries
