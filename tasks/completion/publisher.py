"""Publishes a completion's deltas while it runs: to a Redis stream of the task's own, which expires."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import redis
import redis.asyncio

from penstock.tasks.completion import stream_entries
from penstock.tasks.completion.stream_entries import Fields, deltas_of
from penstock.tasks.services.base import Delta
from penstock.workers.results.types import CompleteResult

logger = logging.getLogger(__name__)

#: Deltas kept of one stream, about; who comes late to a longer one gets its text from the result.
LONGEST = 20_000
#: Seconds for which an ended stream is kept; after that the result has it all.
KEPT_S = 3600
#: Deltas that may wait for a slow broker before the answer's reading waits for it too.
AHEAD = 500


class StreamPublisher:
    """Publishes one run of a task. Each delta is sent at once; those that come while the broker answers go together.

    A broker that is away costs readers the stream, never the caller the answer: they get it from the result.

    Args:
        client: asyncio client of the Redis that holds the streams; None publishes nothing.
        key: of the task's stream.
        expires_s: seconds for which results are kept, and so a stream at most.
    """

    def __init__(self, client: redis.asyncio.Redis | None, key: str = "", expires_s: int = KEPT_S) -> None:
        self._client, self._key, self._expires_s = client, key, expires_s
        self._run = uuid4().hex[:16]
        self._count = 0
        self._begun = False
        self._pending: list[Fields] = []
        self._sending: asyncio.Task[None] | None = None

    async def put(self, delta: Delta) -> None:
        """Publish a delta; returns before it is sent, unless many wait."""
        self._begin()
        self._pending.append(stream_entries.delta_entry(self._run, self._count, delta))
        self._count += 1
        sending = self._send()
        if len(self._pending) > AHEAD:
            await sending

    async def end(self, result: CompleteResult) -> None:
        """Publish the end, and before it the whole answer if none of it was published."""
        if not self._count:
            for delta in deltas_of(result):
                await self.put(delta)
        self._begin()
        await self._close(stream_entries.end(self._run, self._count))

    async def fail(self, error: BaseException) -> None:
        """Publish that the task has failed."""
        self._begin()
        await self._close(stream_entries.failure(self._run, error))

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._pending.append(stream_entries.begin(self._run))

    def _send(self) -> asyncio.Task[None]:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_all())
        return self._sending

    async def _close(self, last: Fields) -> None:
        self._pending.append(last)
        await self._send()
        if self._pending:  # the task that was sending had looked for the last time
            await self._send()

    async def _send_all(self) -> None:
        while self._pending:
            entries, self._pending = self._pending, []
            if self._client is None:
                continue
            try:
                await self._add(self._client, entries)
            except (redis.RedisError, OSError) as exc:
                logger.warning("the broker took no part of a stream (%s): its readers wait for the result", exc)

    async def _add(self, client: redis.asyncio.Redis, entries: list[Fields]) -> None:
        async with client.pipeline(transaction=True) as pipe:
            for fields in entries:
                if fields["k"] == "b":
                    # Not deleted: the ids go on from the old run's, so that no reader passes over the new one's.
                    pipe.xtrim(self._key, maxlen=0, approximate=False)
                pipe.xadd(self._key, fields, maxlen=LONGEST, approximate=True)
            if entries[0]["k"] == "b":
                pipe.expire(self._key, self._expires_s)
            if entries[-1]["k"] in "ef":
                pipe.expire(self._key, min(self._expires_s, KEPT_S))
            await pipe.execute()
