"""A step of the worker's consumer that feeds it: takes messages off our queues, and hands each to Celery in process.

Celery sees an ordinary message whose channel is ours (``message``): acknowledging or rejecting it ends the lease. Of
kombu the worker keeps remote control and events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import redis
from celery import bootsteps
from kombu.message import Message
from kombu.serialization import prepare_accept_content

from penstock.config.errors import MessageKillsWorkers, MessageUnreadable, PenstockError
from penstock.config.names import origin_queue, parse_queue, suspects_queue
from penstock.config.redis import connect, connect_async
from penstock.config.urls import is_redis
from penstock.workers.broker.dead_letters import set_apart
from penstock.workers.broker.deaths import CONVICTED_AT, deaths_of
from penstock.workers.broker.delayed import set_aside
from penstock.workers.broker.feed import MessageFeed
from penstock.workers.broker.leases import Leases
from penstock.workers.broker.message import LeaseChannel, Taken, Unreadable, check_body, read_id, read_message
from penstock.workers.broker.selection import Selection
from penstock.workers.broker.sweep import Sweep
from penstock.workers.broker.unknown import UnknownQueues
from penstock.workers.embedded.broker import urls
from penstock.workers.pool.loop import Wake, at_close, heed_cancellation, process_loop
from penstock.workers.runtime import runtime

logger = logging.getLogger(__name__)

#: Seconds after which a message whose end could not be written down is put back, and most for what is being taken when
#: taking stops.
AGAIN_S, END_S = 1.0, 1.0
#: Why a message is run no more that kills its workers; and what is said of a message that is set apart, by its error.
KILLS = f"it ended {CONVICTED_AT} workers running that ran nothing else, while other messages completed"
_FAULTS = {MessageUnreadable: "cannot be read", MessageKillsWorkers: "is run no more"}


class Feeder(bootsteps.StartStopStep):
    """The step. It outlives reconnections: leases are the process's."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        settings = runtime().settings
        self._settings, self._url = settings, urls(settings).broker
        if is_redis(self._url):
            consumer.feeder = self
        controller = consumer.controller
        chosen = getattr(controller, "chosen_queues", None)
        self.selection = Selection(settings.key_prefix, chosen, getattr(controller, "excluded_queues", ()))
        self._handler: Any = None
        self._consumer: Any = None
        beats = settings.heartbeat_s, settings.visibility_timeout_s
        self._leases = Leases(lambda: connect(self._url), settings.key_prefix, *beats, self._wake, self._on_convicted)
        self._channel = LeaseChannel(self._leases)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: Wake | None = None
        self._task: asyncio.Task[None] | None = None
        self._feed: MessageFeed | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def include_if(self, consumer: Any) -> bool:
        """Leave the step out where the broker is no Redis: there kombu's own consumer takes messages."""
        return is_redis(self._url)

    def start(self, consumer: Any) -> None:
        """Take messages from now on; again after each reconnection."""
        self._consumer, self._handler = consumer, consumer.create_task_handler()
        self._accept = prepare_accept_content(consumer.app.conf.accept_content)
        if self._loop is None:
            self._loop = process_loop().loop
            self._leases.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()

    def stop(self, consumer: Any) -> None:
        """Take no more. What is in flight goes on, and keeps its lease."""
        task, self._task = self._task, None
        if task is not None:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._end(task), process_loop().loop).result(END_S + 1)

    def queues(self) -> list[str]:
        """Return the queues that this worker serves."""
        return self.selection.known(runtime().endpoints.all())

    def _wake(self) -> None:
        """Have the feed look again. From any thread."""
        if self._look is not None:
            self._look()

    # On the event loop -------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._feed is None:
            at_close(self._close_leases)
            client = connect_async(self._url)
            at_close(client.aclose)
            self._feed = MessageFeed(runtime(), client, self._leases, self.selection, self._limit, self._deliver)
            self._look = Wake(asyncio.get_running_loop(), self._feed.wake)
            self._sweep = Sweep(runtime(), client, self.selection, self._feed.suspects_turn)
            self._unknown = UnknownQueues(runtime(), client, self.selection)
            self._client = client
        self._feed.begin()
        work = take_messages(self._sweep, self._feed, self._unknown)
        self._task = asyncio.get_running_loop().create_task(work, name="penstock-feed")

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Stop the feed; where the broker does not answer, what it had leased to us by then comes again later."""
        if self._feed is not None:
            self._feed.stop()
        await asyncio.wait({task}, timeout=END_S)
        task.cancel()
        await asyncio.wait({task})

    async def _close_leases(self) -> None:
        self._leases.close()

    def _limit(self) -> int:
        pool = self._consumer.pool
        return int(getattr(pool, "limit", 0) or pool.num_processes or 1)

    def _deliver(self, taken: Sequence[Taken]) -> None:
        """Hand messages to Celery in the worker's own thread, in their order."""
        readable = [(message, each) for each in taken if (message := self._read(each)) is not None]
        if readable:
            self._consumer.call_soon(self._hand_over_all, readable)

    def _read(self, taken: Taken) -> Message | None:
        """Return a message that can be run now. Any other ends up where it belongs."""
        try:
            message = read_message(taken, self._channel, self._accept)
        except Unreadable as exc:
            logger.error("a message on %s cannot be read: %s; it is set apart", taken.queue, exc)
            self._set_apart(taken, str(exc))
            return None
        if taken.queue == origin_queue(taken.queue) and deaths_of(message.headers).suspect:
            self._spawn(taken.tag, self._set_aside(taken, suspects_queue(taken.queue), 0.0))
            return None
        # Celery would wait for the message's time in its own memory, and forget it with its connection; here it waits
        # in the broker, and comes without it.
        if (delay_s := _eta_in(message.headers.get("eta"))) > 0:
            self._spawn(taken.tag, self._set_aside(taken, taken.queue, delay_s))
            return None
        if delay_s < 0:
            message.headers["eta"] = None
        return message

    def _set_apart(self, taken: Taken, why: str, kind: type[PenstockError] = MessageUnreadable) -> None:
        self._spawn(taken.tag, self._add_dead(taken, why, kind))

    def _on_convicted(self, tag: str, queue: str, raw: bytes) -> None:
        """Set a message apart that kills its workers. From the thread of the leases."""
        taken = Taken(tag, origin_queue(queue), raw)
        logger.error("a message on %s is run no more: %s; it is set apart", taken.queue, KILLS)
        process_loop().loop.call_soon_threadsafe(self._set_apart, taken, KILLS, MessageKillsWorkers)

    def _spawn(self, tag: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._see_through(tag, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, tag: str, work: Coroutine[Any, Any, None]) -> None:
        """Await what ends a message's lease. Where it cannot, the message goes back, and comes again."""
        try:
            await work
        except Exception as exc:
            logger.warning("a message could not be put where it belongs (%s); it comes again", exc)
            await asyncio.sleep(AGAIN_S)
            self._leases.put_back(tag)

    async def _add_dead(self, taken: Taken, why: str, kind: type[PenstockError]) -> None:
        """Tell the sender, where a message says whose it is, then set it apart."""
        if (task_id := read_id(taken.raw)) is not None:
            where = f"it is kept: see `penstock lane dead {_lane_of(taken.queue)}`"
            error = kind(f"the message of task {task_id} on {taken.queue} {_FAULTS[kind]}: {why}; {where}")
            await asyncio.to_thread(self._fail, task_id, error)
        await set_apart(self._client, self._settings.key_prefix, self._leases, taken, why)

    async def _refuse(self, tag: str, task_id: str, error: Exception, request: Any) -> None:
        await asyncio.to_thread(self._fail, task_id, error, request)
        self._leases.ack(tag)

    def _fail(self, task_id: str, error: Exception, request: Any = None) -> None:
        self._consumer.app.backend.mark_as_failure(task_id, error, request=request)

    async def _set_aside(self, taken: Taken, queue: str, delay_s: float) -> None:
        await set_aside(self._client, self._settings.key_prefix, taken.tag, queue, delay_s, begun=False)
        self._leases.drop(taken.tag)

    def _hand_over_all(self, messages: Sequence[tuple[Any, Taken]]) -> None:
        """In the worker's thread."""
        for message, taken in messages:
            self._hand_over(message, taken)

    def _hand_over(self, message: Any, taken: Taken) -> None:
        try:
            check_body(message)
            self._handler(message)
        except Exception as exc:
            why = str(exc) if isinstance(exc, Unreadable) else f"Celery cannot handle it ({type(exc).__name__})"
            logger.error("a message on %s cannot be handled: %s; it is set apart", taken.queue, why)
            process_loop().loop.call_soon_threadsafe(self._set_apart, taken, why)

    def refuse(self, message: Any, task_id: str, error: Exception, request: Any) -> None:
        """Store an error as the result of a message's task, then end its lease. In the worker's thread."""
        work = self._refuse(message.delivery_tag, task_id, error, request)
        process_loop().loop.call_soon_threadsafe(self._spawn, message.delivery_tag, work)


async def take_messages(sweep: Sweep, feed: MessageFeed, unknown: UnknownQueues | None = None) -> None:
    """Run the loops until the feed is told to stop."""
    with contextlib.suppress(PenstockError, redis.RedisError, OSError):
        await sweep.look()  # the quotas of endpoints, before anything is taken
        if unknown is not None:
            await unknown.look()  # and what is left to others
    heed_cancellation()
    async with asyncio.TaskGroup() as group:
        looking = [group.create_task(each.run()) for each in (sweep, unknown) if each is not None]
        await feed.run()
        for each in looking:
            each.cancel()


def _lane_of(queue: str) -> str:
    lane = parse_queue(queue)
    return lane[0] if lane else queue


def _eta_in(eta: Any) -> float:
    """Return the seconds until a message's time, below 0 after it, 0 where it has none that can be read."""
    if not isinstance(eta, str):
        return 0.0
    from celery.utils.iso8601 import parse_iso8601
    from celery.utils.time import maybe_make_aware

    try:
        return float(maybe_make_aware(parse_iso8601(eta)).timestamp()) - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
