"""Leases on messages in flight: whose work it is, renewed while it is done, by this process as a whole.

A message that a worker has taken stands in the broker as leased, with the time of its last renewal by the server's
clock. A live worker renews every few seconds from a thread of its own, whatever its event loops do; when a worker dies,
its messages' leases run out and another worker puts them on their queues again.

Leases belong to the process, not to a connection: when the broker's connection breaks and comes back, work in flight
goes on, keeps its lease and is acknowledged over the new connection. Nobody waits for the broker to acknowledge: the
same thread does it, many in one round trip, and keeps what it could not tell a broker that is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import redis

from penstock.config.names import completed_key, holder_key, unacked_index_key, unacked_key
from penstock.config.redis import text
from penstock.workers.broker.restore import OnConvicted, Restorer, end_leases
from penstock.workers.lua import script

logger = logging.getLogger(__name__)

#: Seconds between two looks at leases that have run out.
LOOK_S = 1.0
#: Seconds for which what has ended is gathered, so that it is told to the broker together.
GATHER_S = 0.01
#: Seconds for which the count of messages that have ended is kept after the last one.
COMPLETED_KEPT_S = 14 * 86_400
#: Messages put back in one call, those in one look whose leases have run out.
PUT_BACK_AT_ONCE = 100


class Leases:
    """The messages that this process has in flight on one broker.

    Args:
        connect: makes a client for the broker.
        prefix: prefix of all keys.
        heartbeat_s: seconds between renewals.
        visibility_s: seconds after its last renewal at which a lease has run out.
        on_end: is called, from any thread, when a lease has ended.
        on_convicted: is given, from the thread of the leases, the tag, queue and contents of a message that kills its
            workers (``deaths``), and shall end its lease; None: such a message is put back as any other.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        prefix: str,
        heartbeat_s: float,
        visibility_s: float,
        on_end: Callable[[], object] = lambda: None,
        on_convicted: OnConvicted | None = None,
    ) -> None:
        self._on_convicted = on_convicted
        self._connect, self._prefix = connect, prefix
        self._heartbeat_s, self._visibility_s, self._on_end = heartbeat_s, visibility_s, on_end
        self.keys = [unacked_index_key(prefix), unacked_key(prefix), holder_key(prefix)]
        self._queues: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._acks: set[str] = set()
        self._begun: set[str] = set()
        self._returns: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._thread: threading.Thread | None = None
        self._wake, self._closing = threading.Event(), False

    def start(self) -> None:
        """Renew, acknowledge and put back from a thread of its own, until ``close``."""
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="penstock-leases", daemon=True)
        self._thread.start()

    def hold(self, tag: str, queue: str) -> None:
        """Note a message just taken from ``queue``; from now on its lease is renewed."""
        with self._lock:
            self._queues[tag] = queue
            self._counts[queue] += 1

    def begin(self, tag: str) -> None:
        """Note that a message's task is about to run: put back from now on, it comes as delivered again."""
        with self._lock:
            self._begun.add(tag)

    def __len__(self) -> int:
        return len(self._queues)

    def in_flight(self) -> Counter[str]:
        """Messages in flight by queue."""
        with self._lock:
            return Counter(self._counts)

    def tags(self) -> list[str]:
        """Delivery tags in flight."""
        with self._lock:
            return list(self._queues)

    def drop(self, tag: str) -> None:
        """Forget a message: it has ended, or somebody else has it, or shall have it."""
        with self._lock:
            self._begun.discard(tag)
            queue = self._queues.pop(tag, None)
            if queue is not None:
                self._counts[queue] -= 1
                if not self._counts[queue]:
                    del self._counts[queue]
        self._on_end()

    def ack(self, tag: str) -> None:
        """Acknowledge a message; if the broker is away, as soon as it is back. Does not wait."""
        with self._lock:
            self._acks.add(tag)
        self.drop(tag)
        self._wake.set()

    def put_back(self, tag: str) -> None:
        """Put a message in flight on its queue again, as the next to be taken. Does not wait."""
        with self._lock:
            self._returns[tag] = tag in self._begun
        self.drop(tag)
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Tell the broker what has ended, put back all that is still held, and stop renewing."""
        for tag in self.tags():
            self.put_back(tag)
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # In the thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        renewed_at = looked_at = time.monotonic()
        while True:
            if self._wake.wait(min(self._heartbeat_s, LOOK_S)) and not self._closing:
                time.sleep(GATHER_S)
            self._wake.clear()
            closing, now = self._closing, time.monotonic()
            try:
                if now - renewed_at >= self._heartbeat_s:  # first: whatever else fails, leases are kept
                    self.renew()
                    renewed_at = now
                self.flush()
                if now - looked_at >= LOOK_S:
                    self.restore_lapsed()
                    looked_at = now
            except (redis.RedisError, OSError) as exc:
                logger.warning("the broker does not take what has ended (%s); trying again", exc)
                time.sleep(0.0 if closing else min(1.0, self._heartbeat_s / 4))
            if closing:
                return

    def flush(self) -> None:
        """Deliver acknowledgements, and put back what was handed back."""
        with self._lock:
            acks, returns = list(self._acks), dict(self._returns)
        if acks:
            self._acknowledge(acks)
            with self._lock:
                self._acks.difference_update(acks)
        while returns:
            some = [returns.popitem() for _ in range(min(PUT_BACK_AT_ONCE, len(returns)))]
            self._restorer().put_back(dict(some))
            with self._lock:
                for tag, _ in some:
                    self._returns.pop(tag, None)

    def renew(self) -> None:
        """Renew every lease now."""
        held = self.tags()
        if held:
            script(self._redis(), "broker/renew")(keys=self.keys[:1], args=held)

    def restore_lapsed(self) -> int:
        """Put messages whose lease ran out, by the server's clock, on their queues again. Returns how many."""
        client = self._redis()
        lapsed = script(client, "broker/lapsed")(keys=self.keys[:1], args=[self._visibility_s, PUT_BACK_AT_ONCE])
        scores = {text(tag): float(score) for tag, score in zip(lapsed[::2], lapsed[1::2], strict=True)}
        restored = self._restorer().outlive(scores)
        for tag in restored:
            self.drop(tag)  # if it was ours, we were away for too long
        return len(restored)

    def _restorer(self) -> Restorer:
        return Restorer(self._redis(), self._prefix, self.keys, self._on_convicted)

    def _acknowledge(self, tags: Sequence[str]) -> None:
        with self._redis().pipeline(transaction=True) as pipe:
            end_leases(pipe, self.keys, tags)
            pipe.incrby(completed_key(self._prefix), len(tags))
            pipe.expire(completed_key(self._prefix), COMPLETED_KEPT_S)
            pipe.execute()

    def _redis(self) -> redis.Redis:
        if self._client is None:
            self._client = self._connect()
        return self._client
