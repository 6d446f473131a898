"""Which queues a worker serves: all, but for excluded ones, or those that it was told. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.names import CHUNK_QUEUE, DEFAULT_QUEUE, JOB_CLASSES, operations_queue, parse_queue, queue_name


class Selection:
    """The queues of one worker; changed while it runs by Celery's ``add_consumer`` and ``cancel_consumer``.

    Args:
        prefix: of all keys; a queue may be named with it or without.
        chosen: queues that the worker was told to serve (``-Q``), None for all.
        excluded: queues that it was told to leave out (``-X``).
    """

    def __init__(self, prefix: str, chosen: Iterable[str] | None = None, excluded: Iterable[str] = ()) -> None:
        self._prefix = prefix
        self._chosen = None if chosen is None else {self.bare(queue) for queue in chosen}
        self._excluded = {self.bare(queue) for queue in excluded}
        self._adopted: frozenset[str] = frozenset()
        self._passed_over: frozenset[str] = frozenset()

    def bare(self, queue: str) -> str:
        """Return a queue's name without the prefix of all keys."""
        return queue.removeprefix(self._prefix)

    def add(self, queue: str) -> None:
        """Serve a queue."""
        name = self.bare(queue)
        self._excluded.discard(name)
        if self._chosen is not None:
            self._chosen.add(name)

    def cancel(self, queue: str) -> None:
        """Serve a queue no more."""
        name = self.bare(queue)
        self._excluded.add(name)
        if self._chosen is not None:
            self._chosen.discard(name)

    def adopt(self, queues: Iterable[str]) -> None:
        """Take from these queues too until the next call: nobody else does, for nobody knows their endpoints."""
        self._adopted = frozenset(queues)

    def pass_over(self, queues: Iterable[str]) -> None:
        """Take nothing from these queues until the next call: only others know their endpoints."""
        self._passed_over = frozenset(queues)

    @property
    def excluded(self) -> frozenset[str]:
        """Queues that are left out."""
        return self._passed_over | self._excluded

    def only(self) -> list[str] | None:
        """Return the queues to look at, None for all that have work.

        A lane that it was told to serve brings its operations along.
        """
        if self._chosen is None:
            return None
        return sorted({*self._chosen_queues(self._chosen), *self._adopted} - self._excluded)

    def _chosen_queues(self, chosen: set[str]) -> set[str]:
        lanes = [lane[0] for queue in chosen if (lane := parse_queue(queue)) is not None]
        return chosen | {operations_queue(lane) for lane in lanes}

    def serves(self, queue: str) -> bool:
        """Whether messages of a queue are taken."""
        only = self.only()
        return queue not in self._excluded if only is None else queue in only

    def known(self, endpoints: Iterable[Endpoint]) -> list[str]:
        """Return the queues that this worker serves of those that are known: the endpoints' own, and the fixed ones."""
        if self._chosen is not None:
            return sorted(self._chosen_queues(self._chosen) - self._excluded)
        return [queue for queue in all_queues(endpoints) if queue not in self._excluded]


def all_queues(endpoints: Iterable[Endpoint]) -> list[str]:
    """Return every queue of these endpoints, and the fixed ones."""
    queues = [DEFAULT_QUEUE, CHUNK_QUEUE]
    for endpoint in endpoints:
        queues += [queue_name(endpoint.inference_id, job_class) for job_class in JOB_CLASSES]
        if endpoint.task_type is TaskType.IMAGE_GENERATION:
            queues.append(operations_queue(endpoint.inference_id))
    return queues
