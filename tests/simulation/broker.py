"""The broker: a real Valkey on the simulation's clock, and the links over which workers reach it.

A link is what a process has of the network: it takes time, it can be cut, and whoever is frozen or dead gets nothing
through it. What passes is carried out whole, one after the other, and shown to those who watch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import redis
from greenlet import getcurrent

from penstock.config.names import (
    JOB_CLASSES,
    due_messages_key,
    lane_key,
    queue_key,
    queue_name,
    signal_channel,
    suspects_queue,
    unacked_key,
)
from penstock.config.redis import text
from penstock.workers import lua
from penstock.workers.lanes.states import State, may_send
from penstock.workers.pool.loop import running_in_pool, wait

T = TypeVar("T")
SCRIPTS = ("lanes/reserve", "lanes/dispatch", *(f"broker/{name}" for name in (
    "take", "renew", "lapsed", "restore", "ring", "hold", "turn", "due", "set_aside", "set_apart", "revive",
)))  # fmt: skip
#: Operations of a lane that tell nobody.
QUIET = frozenset({"reserve", "report", "look", "learn", "release"})


@dataclass(frozen=True)
class LaneView:
    """What a lane's hash says of its state."""

    state: State = State.OPEN
    paused: bool = False
    cooldown_until: float = 0.0
    cooldown_number: int = 0


@dataclass
class Step:
    """One script that was carried out. ``link`` is its caller's; times are ms of the server's clock."""

    script: str
    link: Link
    keys: list[Any]
    args: list[Any]
    answer: Any
    now_ms: float
    before: LaneView = field(default_factory=LaneView)
    after: LaneView = field(default_factory=LaneView)

    @property
    def operation(self) -> str:
        """Of a lane."""
        return str(self.args[1])

    def argument(self, name: str) -> float:
        """Return a number that a lane's operation was given, 0 where it was not."""
        pairs = self.args[3:]
        return next((float(pairs[n + 1]) for n in range(0, len(pairs), 2) if pairs[n] == name), 0.0)


class Broker:
    """The server.

    Args:
        client: of a real one, empty.
        prefix: of all keys.
        endpoint: the one endpoint's id.
        limit: most scripts that are carried out, a count; ``spent`` says that they were.
    """

    def __init__(self, client: redis.Redis, prefix: str, endpoint: str, limit: int) -> None:
        self.client, self.prefix, self.limit = client, prefix, limit
        self.offset_ms = 0.0
        self.calls = 0
        self.on_step: list[Callable[[Step], None]] = []
        self.on_messages: list[Callable[[], None]] = []
        queues = [queue_name(endpoint, each) for each in JOB_CLASSES]
        self.places = [queue_key(prefix, each) for each in (*queues, *map(suspects_queue, queues))]
        self.hashes = [unacked_key(prefix), due_messages_key(prefix)]
        self.messages = 0
        self.lane = LaneView()
        self._names = {lua.source(name): name for name in SCRIPTS}
        self._shas = {name: str(client.script_load(source)) for source, name in self._names.items()}
        self._bells: list[tuple[Link, list[str], asyncio.Future[Any]]] = []
        self._listeners: list[tuple[Link, asyncio.Queue[bytes | Exception]]] = []
        self._signals: Any = client.pubsub()  # type: ignore[no-untyped-call]
        self._signals.subscribe(signal_channel(prefix))

    @property
    def spent(self) -> bool:
        """Whether it has carried out as many scripts as it may."""
        return self.calls >= self.limit

    def now_ms(self) -> float:
        """The server's clock."""
        return asyncio.get_running_loop().time() * 1000 + self.offset_ms

    def name_of(self, source: str) -> str:
        """Return a script's name by its text."""
        return self._names[source]

    def run(self, link: Link, name: str, keys: Iterable[Any], args: Iterable[Any]) -> Any:
        """Carry out a script, at the time of now where its caller leaves that to the server."""
        self.calls += 1
        keys, args = list(keys), list(args)
        now = self.now_ms()
        if args[0] == "":
            args[0] = repr(now)
        of_lane = name.startswith("lanes/")
        pipe = self.client.pipeline(transaction=False)
        pipe.evalsha(self._shas[name], len(keys), *keys, *args)
        if of_lane:
            pipe.hmget(keys[0], "state", "paused", "cooldown_until", "cooldown_number")
        else:
            self._count(pipe)
        answer, *rest = pipe.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        step = Step(name, link, keys, args, answer, now, self._seen(self.lane, now))
        if of_lane:
            state, paused, until, number = rest[0]
            told = State(text(state)) if state else State.OPEN
            self.lane = LaneView(told, paused == b"1", float(until or 0), int(number or 0))
            if step.operation not in QUIET:
                self._hear()
        step.after = self._seen(self.lane, now)
        link.carried = step
        if not of_lane:
            self._counted(rest)
        if name == "broker/ring":
            self._serve_bells()
        for watch in self.on_step:
            watch(step)
        return answer

    def plain(self, name: str, *args: Any, **options: Any) -> Any:
        """Carry out a command."""
        if name == "time":
            seconds, ms = divmod(self.now_ms(), 1000)
            return int(seconds), int(ms * 1000)
        answer = getattr(self.client, name)(*args, **options)
        if name == "lpush":
            self._recount()
        return answer

    def pipeline(self, commands: list[tuple[str, Any, Any]]) -> list[Any]:
        """Carry out a transaction."""
        with self.client.pipeline(transaction=True) as pipe:
            for name, args, options in commands:
                getattr(pipe, name)(*args, **options)
            self._count(pipe)
            answers: list[Any] = pipe.execute()
        self._counted(answers[len(commands) :])
        return answers[: len(commands)]

    def contents(self) -> list[bytes]:
        """Return every message that is in the broker, wherever it is."""
        with self.client.pipeline(transaction=False) as pipe:
            for each in self.places:
                pipe.lrange(each, 0, -1)
            for each in self.hashes:
                pipe.hvals(each)
            return [message for place in pipe.execute() for message in place]

    def lane_view(self) -> LaneView:
        """Return the lane's state by the clock of now."""
        return self._seen(self.lane, self.now_ms())

    def may_send(self, sender: Any) -> str:
        """Return who may send now, by the table."""
        seen = self.lane_view()
        return may_send(seen.state, sender, paused=seen.paused)

    # Inside -----------------------------------------------------------------------------------------

    @staticmethod
    def _seen(lane: LaneView, now: float) -> LaneView:
        if lane.state in (State.PARKED, State.PROBING):
            return lane
        state = State.COOLING if lane.cooldown_until > now else State.OPEN
        return replace(lane, state=state)

    def _count(self, pipe: Any) -> None:
        for each in self.places:
            pipe.llen(each)
        for each in self.hashes:
            pipe.hlen(each)

    def _recount(self) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            self._count(pipe)
            self._counted(pipe.execute())

    def _counted(self, counts: list[int]) -> None:
        before, self.messages = self.messages, sum(counts)
        if before > self.messages:
            for watch in self.on_messages:
                watch()

    def _hear(self) -> None:
        """Pass on what the script has published. The server answers the ping after it."""
        self._signals.ping()
        while True:
            message = self._signals.get_message(timeout=5)
            assert message is not None, "the server does not answer"
            if message["type"] == "pong":
                return
            if message["type"] == "message":
                for _, queue in self._listeners:
                    queue.put_nowait(message["data"])

    def _serve_bells(self) -> None:
        for waiter in list(self._bells):
            _, keys, future = waiter
            rung = None if future.done() else self._pop(keys)
            if rung is not None:
                self._bells.remove(waiter)
                future.set_result(rung)

    def _pop(self, keys: list[str]) -> Any:
        for key in keys:
            found = self.client.rpop(key)
            if found is not None:
                return key, found
        return None

    async def bell(self, link: Link, keys: list[str], timeout_s: float) -> Any:
        """Wait for a bell, as BRPOP does."""
        rung = self._pop(keys)
        if rung is not None:
            return rung
        waiter = (link, keys, asyncio.get_running_loop().create_future())
        self._bells.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter[2]
        except TimeoutError:
            return None
        finally:
            if waiter in self._bells:
                self._bells.remove(waiter)

    def listen(self, link: Link) -> asyncio.Queue[bytes | Exception]:
        """Return a queue of what is published from now on."""
        queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._listeners.append((link, queue))
        return queue

    def hang_up(self, link: Link) -> None:
        """A link's connections are gone."""
        for each, keys, future in list(self._bells):
            if each is link:
                self._bells.remove((each, keys, future))
                if not future.done():
                    future.set_exception(redis.ConnectionError("the connection was cut"))
        for each, queue in self._listeners:
            if each is link:
                queue.put_nowait(redis.ConnectionError("the connection was cut"))
        self._listeners = [each for each in self._listeners if each[0] is not link]

    def lane_key(self, quota: str) -> str:
        """Return the key of a quota's lane."""
        return lane_key(self.prefix, quota)

    def close(self) -> None:
        """Hear no more."""
        self._signals.close()


class Link:
    """A process's way to the broker.

    Args:
        broker: the server.
        rtt_s: seconds there and back, about.
        chance: source of jitter.
    """

    def __init__(self, broker: Broker, rtt_s: float = 0.0, chance: random.Random | None = None) -> None:
        self.broker, self.rtt_s = broker, rtt_s
        self.name = "outside"
        self.dead = False
        self.frozen_until = self.cut_until = float("-inf")
        #: When it was last frozen, cut or stalled, by the loop's clock.
        self.trouble_at = float("-inf")
        self._chance = chance or random.Random(0)
        #: The last script that was carried out for it, and who is told where its answer is lost.
        self.carried: Step | None = None
        self.on_doubt: Callable[[Step], None] = lambda step: None

    @property
    def cut(self) -> bool:
        """Whether nothing passes now."""
        return asyncio.get_running_loop().time() < self.cut_until

    @property
    def frozen(self) -> bool:
        """Whether the process stands still."""
        return asyncio.get_running_loop().time() < self.frozen_until

    async def thawed(self) -> None:
        """Wait until the process runs; one that is dead waits for ever."""
        loop = asyncio.get_running_loop()
        while self.dead or self.frozen:
            if self.dead:
                await loop.create_future()
            await asyncio.sleep(self.frozen_until - loop.time())

    async def pass_over(self) -> None:
        """Pass to the broker, or back. Raises ConnectionError where the link is cut."""
        await self.thawed()
        self._check()
        if self.rtt_s:
            await asyncio.sleep(self.rtt_s / 2 * self._chance.uniform(0.9, 1.1))
            await self.thawed()
            self._check()

    async def carry_out(self, action: Callable[[], T]) -> T:
        """Have the broker do something."""
        await self.pass_over()
        self.carried = None
        answer, carried = action(), self.carried
        try:
            await self.pass_over()
        except redis.ConnectionError:
            if carried is not None:
                self.on_doubt(carried)
            raise
        return answer

    def carry_out_blocking(self, action: Callable[[], T]) -> T:
        """The same from synchronous code; in a thread of the process it takes its time, elsewhere none."""
        if running_in_pool() and getcurrent().parent is not None:
            return wait(self.carry_out(action))
        self._check()
        return action()

    def _check(self) -> None:
        if self.cut:
            raise redis.ConnectionError("the connection was cut")

    def cut_for(self, seconds: float) -> None:
        """Let nothing pass for so long."""
        until = asyncio.get_running_loop().time() + seconds
        self.trouble_at = self.cut_until = max(self.cut_until, until)
        self.broker.hang_up(self)

    def freeze_for(self, seconds: float) -> None:
        """Have the process stand still for so long."""
        until = asyncio.get_running_loop().time() + seconds
        self.trouble_at = self.frozen_until = max(self.frozen_until, until)

    def die(self) -> None:
        """End the process at once: it does nothing more."""
        self.dead = True
        self.broker.hang_up(self)


class AsyncClient:
    """redis-py's asyncio client, as far as it is used, over a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        def command(*args: Any, **options: Any) -> Any:
            return self._link.carry_out(lambda: self._link.broker.plain(name, *args, **options))

        return command

    def register_script(self, source: str) -> Any:
        """Return a script to await."""
        link, name = self._link, self._link.broker.name_of(source)
        return lambda keys, args: link.carry_out(lambda: link.broker.run(link, name, keys, args))

    async def brpop(self, keys: list[str], timeout: float = 0) -> Any:  # noqa: A002, RUF100 - redis-py's name
        """Wait for an element."""
        await self._link.pass_over()
        found = await self._link.broker.bell(self._link, list(keys), timeout)
        await self._link.pass_over()
        return found

    def pipeline(self, transaction: bool = True) -> Pipeline:
        """Return commands that are carried out together."""
        return Pipeline(self._link)

    def pubsub(self, **_: Any) -> Subscription:
        """Return what listens."""
        return Subscription(self._link)

    async def aclose(self) -> None:
        """Nothing to close."""


class BlockingClient:
    """redis-py's blocking client, as far as it is used, over a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        if name == "connection_pool":
            return self._link.broker.client.connection_pool

        def command(*args: Any, **options: Any) -> Any:
            return self._link.carry_out_blocking(lambda: self._link.broker.plain(name, *args, **options))

        return command

    def register_script(self, source: str) -> Any:
        """Return a script to call."""
        link, name = self._link, self._link.broker.name_of(source)
        return lambda keys, args: link.carry_out_blocking(lambda: link.broker.run(link, name, keys, args))

    def pipeline(self, transaction: bool = True) -> Pipeline:
        """Return commands that are carried out together."""
        return Pipeline(self._link, blocking=True)

    def close(self) -> None:
        """Nothing to close."""


class Pipeline:
    """Commands that are carried out together."""

    def __init__(self, link: Link, *, blocking: bool = False) -> None:
        self._link, self._blocking = link, blocking
        self._commands: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def command(*args: Any, **options: Any) -> Pipeline:
            self._commands.append((name, args, options))
            return self

        return command

    def execute(self, raise_on_error: bool = True) -> Any:
        """Carry them out; to be awaited where the client is an asyncio one."""
        commands, self._commands = self._commands, []
        carry = self._link.carry_out_blocking if self._blocking else self._link.carry_out
        return carry(lambda: self._link.broker.pipeline(commands))

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.clear()

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()


class Subscription:
    """What listens to the channel of signals."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._heard: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def subscribe(self, *channels: str) -> None:
        """Listen from now on."""
        await self._link.pass_over()
        self._heard = self._link.broker.listen(self._link)

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what is published."""
        while True:
            heard = await self._heard.get()
            if isinstance(heard, Exception):
                raise heard
            await self._link.pass_over()
            yield {"type": "message", "data": heard}
