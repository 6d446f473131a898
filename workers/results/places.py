"""The two places in which a task's result may be: ours, in our format, and the usual one of any Celery app, as JSON.

Who sent a task decides where its result goes (``penstock.workers.senders``); whoever asks by a task's id need not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.backends.redis import RedisBackend

from penstock.config.names import RESULTS
from penstock.workers.results.serializers import is_ours, read_ours


class Elsewhere(str):
    """A task's id, for the other of the two places in which its result may be."""


class TwoPlacesConsumer(RedisBackend.ResultConsumer):
    """Celery's, which listens for a result in both places."""

    def consume_from(self, task_id: str) -> None:
        """Listen for a task's result from now on."""
        super().consume_from(task_id)
        super().consume_from(Elsewhere(task_id))

    def consume_here(self, task_id: str) -> None:
        """Listen for the result of a task that this app sends, which comes here."""
        super().consume_from(task_id)

    def cancel_for(self, task_id: str) -> None:
        """Listen no more."""
        super().cancel_for(task_id)
        super().cancel_for(Elsewhere(task_id))


class TwoPlaces(RedisBackend):
    """Celery's Redis back end, which finds a result in either place, and reads it by its first bytes."""

    ResultConsumer = TwoPlacesConsumer
    #: The prefix of all keys in the other place.
    other_prefix = ""

    def get_key_for_task(self, task_id: Any, key: Any = "") -> Any:
        """Return a task's key here, or in the other place."""
        if isinstance(task_id, Elsewhere):
            return self.key_t(f"{self.other_prefix}{RESULTS}{task_id}")
        return super().get_key_for_task(task_id, key)

    def get(self, key: Any) -> Any:
        """Return what is stored, None where nothing is."""
        other = self._elsewhere(key)
        found = self.get_here([key] if other is None else [key, other])
        return next((each for each in found if each is not None), None)

    def get_here(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Return what is stored under these very keys, in one call."""
        return list(super().mget(keys))

    def mget(self, keys: Any) -> Any:
        """Return what is stored under each key."""
        found = list(super().mget(keys))
        missing = {n: other for n, key in enumerate(keys) if found[n] is None and (other := self._elsewhere(key))}
        if missing:
            for n, value in zip(missing, super().mget(list(missing.values())), strict=True):
                found[n] = value
        return found

    def delete(self, key: Any) -> Any:
        """Delete what is stored, in both places."""
        other = self._elsewhere(key)
        return self.client.delete(key, *([other] if other else []))

    def decode(self, payload: Any) -> Any:
        """Decode what is stored, whosever format it is in."""
        return read_ours(payload) if is_ours(payload) else super().decode(payload)

    def _elsewhere(self, key: Any) -> Any:
        """Return the other key of a task's result, None for a key of another kind or where there is but one place."""
        key, start = self.key_t(key), self.key_t(self.task_keyprefix)
        if not key.startswith(start):
            return None
        other = self.get_key_for_task(Elsewhere(key[len(start) :].decode()))
        return other if other != key else None
