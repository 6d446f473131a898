"""What workers announce: that they are alive, and the ids of their endpoints files, which the registry does not have.

An announcement holds for some seconds by the server's clock, so that what a dead worker knew is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from penstock.config.names import announced_key, endpoints_key
from penstock.config.redis import text
from penstock.workers.lua import script

#: Seconds between two announcements of a worker, and for which one holds.
ANNOUNCE_S, HOLDS_S = 5.0, 20.0


@dataclass(frozen=True)
class KnownEndpoints:
    """What is known of some endpoints.

    Args:
        worker_alive: whether any worker has announced itself.
        ids: those that the registry has, or a worker's file.
    """

    worker_alive: bool
    ids: frozenset[str]

    def lacks(self, inference_id: str) -> bool:
        """Whether nobody knows an id, for certain: without a worker's word, one that is started later may know it."""
        return self.worker_alive and inference_id not in self.ids


def announce(client: redis.Redis, prefix: str, ids: Iterable[str]) -> None:
    """Announce that this worker is alive, and the ids of its file."""
    script(client, "directory/announce")(keys=[announced_key(prefix)], args=[HOLDS_S * 1000, *ids])


def ask(client: redis.Redis, prefix: str, ids: Sequence[str]) -> KnownEndpoints:
    """Ask who knows some endpoints: one round trip.

    Raises:
        redis.RedisError, OSError: it cannot be asked.
    """
    keys = [announced_key(prefix), endpoints_key(prefix)]
    answer: Any = script(client, "directory/known")(keys=keys, args=[HOLDS_S * 1000, *ids])
    alive, *known = answer
    return KnownEndpoints(bool(alive), frozenset(each for each, there in zip(ids, known, strict=True) if there))


def all_ids(client: redis.Redis, prefix: str) -> list[str]:
    """Return all ids that are registered or were announced lately."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hkeys(endpoints_key(prefix))
        pipe.zrange(announced_key(prefix), 0, -1)
        registered, announced = pipe.execute()
    return [name for each in [*registered, *announced] if (name := text(each))]
