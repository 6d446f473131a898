"""A kombu transport for Redis in which messages wait in Redis until their lane may send.

Three things differ from kombu's own, on which it builds:

* **Taking is atomic.** kombu pops a message and then notes it as unacknowledged, in two steps: a worker that dies
  between them, or whose connection is cut while the answer is on its way, loses the message. Here one script does both.
* **The gate.** That script leaves out queues whose lane is cooling, paused, parked or ahead of its schedule; the
  process leaves out those of which it has its window in flight.
* **The bell.** A worker with nothing to do waits on small "bell" lists, rung at each publication, and not on the
  queues themselves. A lost bell costs at most a second; a lost message could never be had back.

It leans on private parts of kombu 5.7 (``_brpop_start``, ``_brpop_read``, ``_put``, ``QoS.append`` and the poller's
``on_poll_start``); ``tests/integration/test_kombu_contract.py`` says which.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import cached_property
from queue import Empty
from typing import Any

import kombu.transport
import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from penstock.config.names import (
    UNACKED,
    UNACKED_INDEX,
    bell_key,
    holder_key,
    queue_key,
    unacked_index_key,
    unacked_key,
)
from penstock.config.settings import HEARTBEAT_S
from penstock.workers.broker.bells import BELLS, ring
from penstock.workers.broker.gate import Gate
from penstock.workers.broker.leases import Leases
from penstock.workers.lua import script
from penstock.workers.runtime import runtime

SCHEMES = {"redis": "penstock", "rediss": "penstocks", "redis+socket": "penstock+socket"}
IDLE_S = 1.0

_leases: dict[tuple[str, str], Leases] = {}


def broker_url(url: str) -> str:
    """Return the URL under which kombu finds this transport: ``redis://`` and its kin change their scheme.

    Others (``amqp://``) are returned as they are: on RabbitMQ, Celery's own prefetch does a coarser job.
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() not in SCHEMES:
        return url
    ours = f"{SCHEMES[scheme.lower()]}://{rest}"
    if scheme.lower() == "rediss" and "ssl_cert_reqs=" not in rest:
        ours += f"{'&' if '?' in rest else '?'}ssl_cert_reqs=CERT_REQUIRED"
    return ours


class QoS(kombu_redis.QoS):
    """Unacknowledged messages of one channel; the leases are the process's."""

    channel: Channel

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message. The broker has noted it already, when it was taken."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge, over whatever connection there is."""
        self.channel.leases.ack(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        self.channel.wake()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or put it back as the next to be taken."""
        if requeue:
            self.channel.leases.put_back(delivery_tag)
        else:
            self.channel.leases.ack(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        self.channel.wake()

    def restore_unacked(self, client: Any = None) -> None:
        """At the end of a channel: hand back what is not done, unless this process goes on doing it."""
        self._flush()
        if not process_goes_on():
            # Where the broker is away, the leases run out.
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, OSError):
                for tag in list(self._delivered):
                    self.channel.leases.put_back(tag)
        self._delivered.clear()

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 1) -> None:
        """Put messages whose lease ran out, by the server's clock, on their queues again."""
        client = self.channel.plain
        seconds, microseconds = client.time()
        ceiling = seconds + microseconds / 1e6 - self.visibility_timeout
        lapsed = client.zrange(
            self.channel.index_key, "-inf", ceiling, byscore=True, offset=0, num=num or 100, withscores=True
        )
        for tag, score in lapsed:
            self.channel.leases.put_back(bytes_to_str(tag), score)


class Poller(kombu_redis.MultiChannelPoller):
    """kombu's poller, which also lets each channel take what its lanes allow."""

    _delivered_now = False

    def on_poll_start(self) -> None:
        """Take, then wait on the bells."""
        if not self._delivered_now:
            self._deliver()
        super().on_poll_start()

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Take, and wait only if there was nothing: without an event loop, a delivery is what its caller waits for."""
        if self._deliver():
            return
        self._delivered_now = True
        try:
            super().get(callback, timeout)
        finally:
            self._delivered_now = False

    def _deliver(self) -> int:
        return sum([channel.deliver_available() for channel in list(self._channels)])


class Channel(kombu_redis.Channel):
    """One channel. Public names are kombu's unless said otherwise."""

    QoS = QoS
    unacked_key, unacked_index_key = UNACKED.pattern, UNACKED_INDEX.pattern
    heartbeat_s = HEARTBEAT_S
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "heartbeat_s")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._due, self._timer = True, None
        self._woken = False
        super().__init__(*args, **kwargs)
        #: This process's leases on this broker; work goes on, and is acknowledged, after the channel is closed.
        self.leases = self._process_leases()

    # What it talks to -------------------------------------------------------------------------------

    @property
    def plain(self) -> redis.Redis:
        """A client that leaves keys as they are, for scripts whose keys already have the prefix."""
        return redis.Redis(connection_pool=self.pool)

    @cached_property
    def _take_script(self) -> Any:
        return script(self.plain, "broker/take")

    @property
    def index_key(self) -> str:
        """Full name of the sorted set of leases."""
        return unacked_index_key(self.global_keyprefix)

    def _process_leases(self) -> Leases:
        key = (self.connection.client.as_uri(), self.index_key)
        if key not in _leases:
            parameters = self._connparams()
            _leases[key] = Leases(
                lambda: redis.Redis(connection_pool=redis.ConnectionPool(**parameters)),
                self.global_keyprefix,
                self.heartbeat_s,
            )
        return _leases[key]

    @cached_property
    def gate(self) -> Gate:
        """Which queues may be taken from now."""
        return Gate(runtime())

    # Taking -----------------------------------------------------------------------------------------

    def deliver_available(self) -> int:
        """Take and deliver while there is room, a message and an open lane. Returns how many were delivered."""
        delivered = 0
        while self._due and self._active_queues and self.qos.can_consume():
            taken = self._take()
            if taken is None:
                break
            delivered += 1
            queue, message = taken
            tag = message["properties"]["delivery_tag"]
            self.leases.hold(tag, queue)
            self.connection._deliver(message, queue)
            if self.leases.holds(tag) and tag not in self.qos._delivered:
                self.leases.ack(tag)  # its consumer wants no acknowledgements: a reply to a control command
        return delivered

    def _take(self) -> tuple[str, Any] | None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        offers = self.gate.offers(queues, self.leases.in_flight(), self.qos.prefetch_count)
        self._due = False
        if not offers:
            return None
        index, item = self._take_script(keys=self._take_keys(offers), args=self.gate.arguments(offers))
        if index:
            queue = offers[index - 1].queue
            self._queue_cycle.rotate(queue)
            self._due = True
            return queue, loads(bytes_to_str(item))
        if item:
            self._wake_after(int(item) / 1000)
        return None

    def _take_keys(self, offers: Sequence[Any]) -> list[str]:
        prefix = self.global_keyprefix
        queues = [queue_key(prefix, offer.queue) for offer in offers]
        return [*self._unacked_keys(), *queues, *(offer.lane for offer in offers)]

    def _unacked_keys(self) -> list[str]:
        """Full names of what is kept of unacknowledged messages: leases, messages, their queues."""
        prefix = self.global_keyprefix
        return [self.index_key, unacked_key(prefix), holder_key(prefix)]

    def _wake_after(self, seconds: float) -> None:
        loop = get_event_loop()
        if loop is None:
            return  # without an event loop, drain_events comes round by itself
        at = time.monotonic() + min(seconds, IDLE_S)
        if self._timer is not None and self._timer[0] <= at and self._timer[0] > time.monotonic():
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (at, loop.call_later(max(0.001, at - time.monotonic()), self._on_timer))

    def _on_timer(self) -> None:
        self._timer = None
        self._due = True

    def wake(self) -> None:
        """Say, from any thread, that there is room again."""
        self._due = True
        loop = get_event_loop()
        if loop is not None and not self._woken:
            self._woken = True
            loop.call_soon(self._on_wake)

    def _on_wake(self) -> None:
        self._woken = False
        self._due = True

    def _get(self, queue: str) -> Any:
        """Take one message whatever its lane (``basic_get``)."""
        keys = [*self._unacked_keys(), queue_key(self.global_keyprefix, queue), ""]
        index, item = self._take_script(keys=keys, args=[0, 0, queue, ""])
        if not index:
            raise Empty
        message = loads(bytes_to_str(item))
        self.leases.hold(message["properties"]["delivery_tag"], queue)
        return message

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        # kombu leaves the prefix out of EXISTS, so that it would find no queue at all.
        return bool(self.plain.exists(queue_key(self.global_keyprefix, queue)))

    # Putting back -----------------------------------------------------------------------------------

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        self.leases.put_back(message.delivery_tag)

    # Bells ------------------------------------------------------------------------------------------

    def _bell(self, queue: str) -> str:
        return bell_key(self.global_keyprefix, queue)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        super()._put(queue, message, **kwargs)
        bell = self._bell(queue)
        if batch is not None:
            # The batch's client puts the prefix before the key of LPUSH by itself, and not before that of LTRIM.
            batch.add("lpush", bell_key("", queue), 1)
            batch.add("ltrim", bell, 0, BELLS - 1)
            return
        ring(self.plain, bell)

    def _brpop_start(self, timeout: float | None = None) -> None:
        bells = [self._bell(queue) for queue in self.active_queues]
        if not bells:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command("BRPOP", *bells, timeout or self.brpop_timeout or IDLE_S)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        # Rung or timed out, the queues are looked at: at least once a second, so that a message whose
        # publisher rang no bell is found as well.
        self._due = True
        if not self.deliver_available():
            raise Empty
        return True


def process_goes_on() -> bool:
    """Whether this process, having lost a connection, goes on with its work in flight."""
    from celery.worker import state

    running = state.should_stop is None and state.should_terminate is None
    return running and bool(state.active_requests)


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the gate."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()


for _scheme in ("penstock", "penstocks"):
    kombu.transport.TRANSPORT_ALIASES[_scheme] = "penstock.workers.broker.transport:Transport"
