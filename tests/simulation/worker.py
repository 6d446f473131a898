"""A worker process: the shipped feed, sweep, leases and task body, on a link of its own.

Of Celery it has what a message goes through: the task is called once, what it gives is stored, then the message is
acknowledged; a message that comes again and whose result is stored is not run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import redis
from celery.exceptions import Ignore, Reject
from kombu.serialization import prepare_accept_content

from penstock.config.settings import Settings
from penstock.tasks.embedding import task as embedding
from penstock.tasks.request.http import HttpClient
from penstock.workers.broker.feed import MessageFeed
from penstock.workers.broker.feeder import take_messages
from penstock.workers.broker.leases import Leases
from penstock.workers.broker.message import LeaseChannel, Taken, read_message
from penstock.workers.broker.selection import Selection
from penstock.workers.broker.sweep import Sweep
from penstock.workers.pool.loop import Interruption, carry, wait
from penstock.workers.runtime import Runtime
from support.virtual_time import START_S

from .broker import AsyncClient, BlockingClient, Link
from .journal import Journal
from .provider import Http, Provider

logger = logging.getLogger(__name__)
ACCEPT = prepare_accept_content(["json"])
#: Seconds until a result that could not be stored is tried again.
STORE_AGAIN_S = 0.5

_current: ContextVar[Worker] = ContextVar("simulated_worker")


class VirtualEvent:
    """A ``threading.Event`` on which threads of the simulation wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Let those go on who wait."""
        self._event.set()

    def clear(self) -> None:
        """Have them wait again."""
        self._event.clear()

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds at most."""
        return wait(self._wait(timeout))

    async def _wait(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                return await self._event.wait()
        except TimeoutError:
            return False


class VirtualThread:
    """A ``threading.Thread`` on the simulation's loop: a greenlet that waits in virtual time."""

    def __init__(self, target: Any, name: str = "", daemon: bool = True) -> None:
        self._target, self._name = target, name
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(carry(self._target, Interruption()), name=self._name)

    def join(self, timeout: float | None = None) -> None:
        """Nobody waits for it here."""


class Lock:
    """A ``threading.Lock``: nobody interrupts anybody here."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Worker:
    """One process.

    Args:
        name: of it.
        link: its way to the broker.
        settings: as all have them.
        provider: whom it asks.
        journal: is told what it does.
        concurrency: tasks at a time.
        on_send: see ``Http``.
        on_begin: is told of each task whose body begins.
    """

    def __init__(
        self,
        name: str,
        link: Link,
        settings: Settings,
        provider: Provider,
        journal: Journal,
        concurrency: int,
        on_send: Any,
        on_begin: Any,
    ) -> None:
        self.name, self.link, self.settings, self.journal, self.concurrency = name, link, settings, journal, concurrency
        link.name = name
        self._provider, self._on_send, self._on_begin = provider, on_send, on_begin
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Work until the process is dead, or the simulation over."""
        _current.set(self)
        self.runtime = Runtime(self.settings)
        self.runtime.of_loop(HttpClient, lambda: Http(self.link, self._provider, self._on_send))  # type: ignore[arg-type, return-value]
        self.leases = Leases(
            lambda: BlockingClient(self.link),  # type: ignore[arg-type, return-value]
            self.settings.key_prefix, self.settings.heartbeat_s, self.settings.visibility_timeout_s, self._on_end,
        )  # fmt: skip
        client: Any = AsyncClient(self.link)
        selection = Selection(self.settings.key_prefix)
        self.channel = LeaseChannel(self.leases)
        self.feed = MessageFeed(self.runtime, client, self.leases, selection, lambda: self.concurrency, self._deliver)
        self.sweep = Sweep(self.runtime, client, selection, self.feed.suspects_turn)
        self.leases.start()
        await take_messages(self.sweep, self.feed)

    def _on_end(self) -> None:
        self.feed.wake()

    def _deliver(self, taken: Sequence[Taken]) -> None:
        for each in taken:
            task = asyncio.get_running_loop().create_task(self._work(each))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task broke down", exc_info=task.exception())
            raise AssertionError("a task broke down") from task.exception()

    async def _work(self, taken: Taken) -> None:
        """What Celery's worker does with a message."""
        message = read_message(taken, self.channel, ACCEPT)
        task_id = message.headers["id"]
        record = self.journal.tasks[task_id]
        if message.delivery_info.get("redelivered") and await self._stored(task_id):
            message.channel.basic_ack(taken.tag)
            return
        self.leases.begin(taken.tag)
        record.runs += 1
        self._on_begin(self.name, record)
        (texts, endpoint), _, _ = message.payload
        request = SimpleNamespace(
            id=task_id, called_directly=False, is_eager=False,
            delivery_info=message.delivery_info, properties=message.properties,
        )  # fmt: skip
        try:
            result: Any = await embedding._embed(SimpleNamespace(request=request), texts, endpoint, {})
        except Reject as exc:
            record.handed_back += 1
            message.channel.basic_reject(taken.tag, requeue=exc.requeue)
            return
        except Ignore:
            message.channel.basic_ack(taken.tag)
            return
        except Exception as exc:
            result = exc
        await self._store(task_id, result)
        message.channel.basic_ack(taken.tag)

    async def _stored(self, task_id: str) -> bool:
        record = self.journal.tasks[task_id]
        while True:
            try:
                return await self.link.carry_out(lambda: record.answered)
            except redis.ConnectionError:
                await asyncio.sleep(STORE_AGAIN_S)

    async def _store(self, task_id: str, result: Any) -> None:
        """Store a result, however long the broker is away. A second time is the same time, if the answer was lost."""
        stored = False

        def store() -> None:
            nonlocal stored
            record = self.journal.tasks[task_id]
            if not stored:
                now = asyncio.get_running_loop().time()
                record.stored += 1
                record.answered_at = record.answered_at or now
                self.journal.note(now - START_S, f"{self.name} stores {task_id}")
            record.result, stored = result, True

        while True:
            try:
                await self.link.carry_out(store)
                return
            except redis.ConnectionError:
                await asyncio.sleep(STORE_AGAIN_S)


@contextmanager
def simulated_processes() -> Iterator[None]:
    """Have what is made for a process made for the worker in whose context it is made."""
    threads = SimpleNamespace(Thread=VirtualThread, Event=VirtualEvent, Lock=Lock)
    with ExitStack() as stack:
        for name, fake in {
            "penstock.workers.runtime.connect": lambda url: BlockingClient(_current.get().link),
            "penstock.workers.runtime.connect_async": lambda url: AsyncClient(_current.get().link),
            "penstock.tasks.embedding.task.runtime": lambda: _current.get().runtime,
            "penstock.workers.broker.leases.threading": threads,
        }.items():
            stack.enter_context(patch(name, fake))
        stack.enter_context(patch("time.sleep", lambda seconds: wait(asyncio.sleep(seconds))))
        yield
