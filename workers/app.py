"""The Celery app: ``celery -A penstock.workers.app worker``, ``from penstock.tasks import embed``.

It is configured from the environment when first used, never at import. Tasks are named here by string only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.utils.objects import cached_property

from penstock.config.names import (
    CHUNK_QUEUE,
    CHUNK_TASK,
    DEFAULT_QUEUE,
    INTERACTIVE,
    LANE_TASKS,
    TASKS,
    is_own_queue,
    queue_name,
)
from penstock.workers.addresses import addressed, prefix_of
from penstock.workers.plain_app import PlainApp, plain_app
from penstock.workers.pool.loop import off_the_loop, running_in_pool

#: What a worker of ours does beside Celery's own steps.
STEPS = (
    "penstock.workers.broker.feeder:Feeder",
    "penstock.workers.broker.lane_watcher:LaneWatcher",
    "penstock.workers.directory.announcer:Announcer",
)
_ENDPOINT_POSITION = 1


class PenstockApp(Celery):
    """Celery, configured from our settings on first use."""

    _bell: Any = None
    #: What is asked before a task is sent (``directory.check``), once the app is configured.
    sender_check: Any = None
    #: Whether this is a worker: what it sends and does not know belongs to other apps.
    works = False

    @cached_property
    def plain(self) -> PlainApp:
        """The app by which others are sent and answered what is theirs."""
        return plain_app()

    def on_configure(self) -> None:
        """Celery asks for the configuration: read the settings.

        Raises:
            ConfigurationError: a setting is wrong.
        """
        from penstock.workers.configuration import configuration  # what only the use of an app needs

        found, self._bell, self.sender_check = configuration()
        # Lanes' queues come and go (``LaneWatcher``); these are always there.
        queues = [Queue(name, Exchange(name), routing_key=name) for name in (DEFAULT_QUEUE, CHUNK_QUEUE)]
        self.config_from_object({**found, "task_queues": queues})

    @cached_property
    def Worker(self) -> Any:  # noqa: N802
        """Celery asks for it when a worker starts. Ends the process where it may not start on this Celery."""
        from penstock.workers.versions import exit_if_untested

        exit_if_untested()
        from penstock.workers import boot  # what only a worker needs

        return boot.worker_of(self)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send a task, as Celery does, and ring for the workers of its queue.

        A task that names no queue goes to its endpoint's lane.

        Raises:
            EndpointNotFound: nobody knows its endpoint. In a worker the task itself says so, to whoever waits for it.
        """
        if not running_in_pool():  # no loop is held up: the texts need not go through the pool
            return self._send(name, args, kwargs, **options)
        return off_the_loop(self._send, name, args, kwargs, **options)

    def _send(self, name: str, args: Any, kwargs: Any, **options: Any) -> Any:
        options, prefix = addressed(options, self), prefix_of(self)
        queue = options.get("queue")
        if isinstance(queue, str):  # a full name, which signatures bear for other apps
            options["queue"] = queue = queue.removeprefix(prefix)
        if self.works and name not in self.tasks and not is_own_queue(queue):
            return self.plain.send_task(name, args, kwargs, **options)
        endpoint = endpoint_of(args, kwargs) if name in TASKS and not self.works else None
        if endpoint is not None:
            self.sender_check.refuse_unknown(endpoint)
        sent = super().send_task(name, args, kwargs, **options)
        self.ring([_queue_of(name, args, kwargs, options)])
        return sent

    def ring(self, queues: Iterable[str]) -> None:
        """Tell workers that queues have work: what was published by another way than ``send_task``."""
        if self._bell is not None:
            self._bell.ring(queues)


app = PenstockApp(
    "penstock",
    task_cls="penstock.workers.task:Task",
    amqp="penstock.workers.task:ShortReprs",
    include=[
        "penstock.tasks.declarations",
        "penstock.tasks.chunking.task",
        "penstock.tasks.completion.task",
        "penstock.tasks.embedding.task",
        "penstock.tasks.images.task",
    ],
    set_as_current=False,  # an application's own Celery app stays its current one; a worker sets itself
)
app.steps["consumer"].update(STEPS)


def _queue_of(name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str:
    queue = options.get("queue") or options.get("routing_key") or (route(name, args, kwargs) or {}).get("queue")
    return str(getattr(queue, "name", queue) or DEFAULT_QUEUE)


def route(
    name: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    task: Any = None,
    **_: Any,
) -> dict[str, str] | None:
    """Return the queue of a task: its endpoint's lane, interactive. Celery's router calls it.

    Bulk work names its queue itself (``apply_async(queue=...)``), and so is not routed.
    """
    if name == CHUNK_TASK:
        return {"queue": CHUNK_QUEUE}
    if name not in LANE_TASKS:
        return None
    # Without an endpoint there is no lane; the task itself then says what is missing.
    endpoint = endpoint_of(args, kwargs)
    return {"queue": queue_name(endpoint, INTERACTIVE)} if endpoint is not None else None


def endpoint_of(args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> str | None:
    """Return the endpoint's id among the arguments of a task of ours, None where there is none."""
    endpoint = (kwargs or {}).get("endpoint_id")
    if endpoint is None and args and len(args) > _ENDPOINT_POSITION:
        endpoint = args[_ENDPOINT_POSITION]
    return endpoint if isinstance(endpoint, str) and endpoint else None
