"""The gate: which queues a worker may take from now.

What all workers share (cooling, paused, parked, ahead of schedule) is looked at by the taking script itself; this
module adds what only the process knows: which queue belongs to which lane, and how many of its messages are in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.config.names import BULK, INTERACTIVE, lane_key, parse_queue
from penstock.workers.runtime import Runtime

#: How far ahead of its slot a message may be taken, in milliseconds. Bulk is kept short, so that interactive work that
#: comes waits behind little of it.
BULK_HORIZON_MS = 150
INTERACTIVE_HORIZON_MS = 1000


@dataclass(frozen=True)
class Offer:
    """A queue that may be taken from, with its lane's key ("" for a queue without a lane)."""

    queue: str
    lane: str = ""
    job_class: str = ""


class Gate:
    """Decides for one process.

    Args:
        runtime: knows the endpoints, and what was learnt of their quotas.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._prefix = runtime, runtime.settings.key_prefix

    def offers(self, queues: Sequence[str], in_flight: Counter[str], prefetch: int) -> list[Offer]:
        """Return the queues to offer, interactive ones first, each class in the order given."""
        offers = [self._offer(queue, in_flight, prefetch, len(queues)) for queue in queues]
        return sorted((offer for offer in offers if offer is not None), key=lambda offer: offer.job_class == BULK)

    def arguments(self, offers: Sequence[Offer]) -> list[str | int]:
        """Return the taking script's arguments for these offers."""
        names = [part for offer in offers for part in (offer.queue, offer.job_class)]
        return [BULK_HORIZON_MS, INTERACTIVE_HORIZON_MS, *names]

    def _offer(self, queue: str, in_flight: Counter[str], prefetch: int, queues: int) -> Offer | None:
        lane = parse_queue(queue)
        if lane is None:
            return Offer(queue)
        inference_id, job_class = lane
        endpoint = self._runtime.endpoints.find(inference_id)
        if endpoint is None:
            return Offer(queue)
        cap = share(prefetch, queues)
        room = self._runtime.quotas.of(endpoint.quota).window
        size = room.size_interactive(cap) if job_class == INTERACTIVE else room.size(cap)
        if in_flight[queue] >= size:
            return None
        return Offer(queue, lane_key(self._prefix, endpoint.quota), job_class)


def share(prefetch: int, queues: int) -> int:
    """Most messages of one queue in flight: all the room, less a quarter kept for other lanes where there are some."""
    if prefetch <= 0:
        return 1_000_000
    return prefetch if queues <= 2 else max(1, prefetch - max(1, prefetch // 4))
