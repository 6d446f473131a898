"""Fetches finished results straight from the result back end: no subscriptions, no waiting, many in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import redis
from celery import Celery, states

from penstock.config.errors import InferenceFailed, JobError
from penstock.workers.results.types import EmbedResult

RESULTS_A_ROUND_TRIP = 16
UNSUCCESSFUL = states.PROPAGATE_STATES

TaskAnswer = EmbedResult | BaseException
"""What a task came to."""


class Results:
    """The results of a job's tasks.

    Args:
        app: the Celery app; its result back end must be a Redis.
        client: of that Redis, answering with bytes.
    """

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        self._backend: Any = app.backend
        self._client = client
        self._keys: dict[str, Any] = {}

    def count(self, task_ids: Sequence[str], queue_key: str) -> tuple[int, int]:
        """Return how many of the tasks have a result, and the queue's length: one cheap round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.exists(*map(self._key, task_ids))
            pipe.llen(queue_key)
            there, waiting = pipe.execute()
        return int(there), int(waiting)

    def ready(self, task_ids: Sequence[str]) -> set[str]:
        """Return which of the tasks have a result."""
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.exists(self._key(task_id))
            return {task_id for task_id, there in zip(task_ids, pipe.execute(), strict=True) if there}

    def fetch(self, task_ids: Sequence[str], count: int) -> Iterator[tuple[str, TaskAnswer]]:
        """Yield what tasks came to, in the order given, until ``count`` have been found.

        A task that is still being retried is left out.
        """
        for start in range(0, len(task_ids), RESULTS_A_ROUND_TRIP):
            if count <= 0:
                return
            some = task_ids[start : start + RESULTS_A_ROUND_TRIP]
            payloads = cast("list[bytes | None]", self._client.mget([self._key(each) for each in some]))
            for task_id, payload in zip(some, payloads, strict=True):
                if payload is not None:
                    count -= 1
                    if (answer := self._read(payload)) is not None:
                        yield task_id, answer

    def forget(self, task_ids: Sequence[str]) -> None:
        """Drop results."""
        for start in range(0, len(task_ids), 512):
            self._client.unlink(*(self._key(task_id) for task_id in task_ids[start : start + 512]))
        for task_id in task_ids:
            self._keys.pop(task_id, None)

    def _key(self, task_id: str) -> Any:
        key = self._keys.get(task_id)
        if key is None:
            key = self._keys[task_id] = self._backend.get_key_for_task(task_id)
        return key

    def _read(self, payload: bytes) -> TaskAnswer | None:
        try:
            meta = self._backend.meta_from_decoded(self._backend.decode_result(payload))
        except Exception as exc:
            # Paid for and still stored: another version may read it, so it must not end as dead letters.
            raise JobError(
                f"a stored result cannot be read ({exc}): let workers and this command be of one version, and run it "
                "again; it goes on where it was"
            ) from exc
        if meta["status"] in UNSUCCESSFUL:
            why = meta["result"]
            return why if isinstance(why, BaseException) else InferenceFailed(str(why), "task_failed")
        if meta["status"] != states.SUCCESS:
            return None
        result = meta["result"]
        if not isinstance(result, EmbedResult):
            kind = type(result).__name__
            return InferenceFailed(f"the task returned {kind} where vectors were expected", "malformed_result")
        return result
