"""Results in Redis, for an event loop: many read or written in one round trip.

Whoever asks while a round trip is under way goes with the next one: a lone result waits for nothing, and a busy worker
pays for a command once for many results.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import redis
import redis.asyncio

from penstock.config.redis import connect_async
from penstock.workers.embedded.broker import urls
from penstock.workers.lua import async_script
from penstock.workers.runtime import runtime

#: Results of one round trip at most: their number, and the bytes after which it takes no more.
AT_ONCE, BYTES_AT_ONCE = 100, 4_000_000

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Batch: TypeAlias = list[tuple[Item, "asyncio.Future[Answer]"]]


@dataclass(frozen=True)
class Writing:
    """A result to be stored.

    Args:
        key: its name in Redis, on which waiting clients are subscribed, too.
        value: encoded.
        expires_s: seconds for which it is kept; None: for ever.
    """

    key: bytes | str
    value: bytes | str
    expires_s: int | None


class StoredResults:
    """The results. Errors of Redis go to each who asked.

    Args:
        client: closed by ``aclose``.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._script = async_script(client, "results/store")
        self._reads: Batches[bytes | str, bytes | None] = Batches(self._read, lambda key: 0)
        self._writes: Batches[Writing, None] = Batches(self._write, lambda writing: len(writing.value))

    async def read(self, key: bytes | str) -> bytes | None:
        """Return what is stored, None where nothing is."""
        return await self._reads(key)

    async def write(self, writing: Writing) -> None:
        """Store a result, and tell who waits for it."""
        await self._writes(writing)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(self, keys: Sequence[bytes | str]) -> Sequence[bytes | None]:
        found: Any = await self._client.mget(keys)
        return list(found)

    async def _write(self, writings: Sequence[Writing]) -> Sequence[None]:
        arguments: list[Any] = []
        for each in writings:
            arguments += [each.value, each.expires_s or 0]
        await self._script(keys=[each.key for each in writings], args=arguments)
        return [None] * len(writings)


class Batches(Generic[Item, Answer]):
    """Carries items out together, in the order they came; one batch at a time.

    Args:
        carry_out: returns an answer for each item, in their order.
        size: of an item, in bytes.
    """

    def __init__(
        self, carry_out: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], size: Callable[[Item], int]
    ) -> None:
        self._carry_out, self._size = carry_out, size
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """Have an item carried out, and return its answer. Whoever is cancelled meanwhile calls nothing back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="penstock-results")
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch = self._next()
            error = await self._try(batch)
            if isinstance(error, redis.ResponseError) and len(batch) > 1:
                for each in batch:  # the fault may be one item's, of which no other shall suffer
                    _fail([each], await self._try([each]))
            else:
                _fail(batch, error)

    async def _try(self, batch: Batch[Item, Answer]) -> Exception | None:
        """Carry a batch out, and give its answers. Returns what went wrong."""
        try:
            answers = await self._carry_out([item for item, _ in batch])
        except Exception as exc:
            return exc
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        return None

    def _next(self) -> Batch[Item, Answer]:
        batch: Batch[Item, Answer] = []
        size = 0
        while self._waiting and len(batch) < AT_ONCE and size < BYTES_AT_ONCE:
            batch.append(self._waiting.popleft())
            size += self._size(batch[-1][0])
        return batch


def _fail(batch: Batch[Item, Answer], error: Exception | None) -> None:
    for _, future in batch:
        if error is not None and not future.done():
            future.set_exception(error)


async def read(keys: Sequence[bytes | str]) -> Sequence[bytes | None]:
    """Return what is stored under each key, by the running loop's ``StoredResults``; None where nothing is."""
    return await asyncio.gather(*map(_of_loop().read, keys))


async def write(key: bytes | str, value: bytes | str, expires_s: int | None) -> None:
    """Store and publish, by the running loop's ``StoredResults``."""
    await _of_loop().write(Writing(key, value, expires_s))


def _of_loop() -> StoredResults:
    mine = runtime()
    return mine.of_loop(StoredResults, lambda: StoredResults(connect_async(urls(mine.settings).results)))
