"""Base classes of tasks: ``async def`` bodies, and what may be shown of a task's arguments.

The tasks themselves are above this package; here they are known by name only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import celery
from celery.app.amqp import AMQP
from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name

from penstock.config.errors import BrokerUnavailable
from penstock.config.formats import MESSAGE, MESSAGE_HEADER
from penstock.config.names import CHUNK_TASK, COMPLETE_TASK, EMBED_TASK, IMAGE_TASK
from penstock.config.urls import is_redis
from penstock.workers.addresses import has_address, lane_of, prefix_of
from penstock.workers.pool.loop import identity, wait
from penstock.workers.senders import sent_by_others

#: What the first argument of our tasks holds. Of these tasks no argument is ever shown, only how much there was.
NOUNS = {
    EMBED_TASK: "text",
    COMPLETE_TASK: "message",
    IMAGE_TASK: "prompt",
    CHUNK_TASK: "text",
}
_LONGEST_NAME = 100


class Task(celery.Task):
    """A Celery task whose body may be ``async def``.

    ``blocking`` says to the asyncio pool where the body runs: in a thread (the default of a synchronous one), or on the
    loop, where it must neither compute for long nor sleep, but call ``wait(awaitable)``.

    ``carried_out_by`` names the function (``module:function``) that does the work of a task that is only declared, and
    ``returned_to`` one that is told of its end (as ``after_return`` is): imported by who runs it, not by who sends it.
    """

    abstract = True
    blocking = True
    carried_out_by: str | None = None
    returned_to: str | None = None
    Request = "penstock.workers.request:LeasedRequest"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        run = cls.__dict__.get("run")
        function = run.__func__ if isinstance(run, staticmethod) else run
        other = None
        if inspect.iscoroutinefunction(function):
            other = _waiting(function)
            if "blocking" not in cls.__dict__:
                cls.blocking = False
        elif function is not None and cls.carried_out_by:
            other = _carried_out(function, cls.carried_out_by)
        if other is not None:
            cls.run = staticmethod(other) if isinstance(run, staticmethod) else other

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Let coroutines find their request, in whatever thread they run."""
        cls.request_stack.__ident_func__ = identity

    def after_return(self, *end: Any) -> None:
        """Tell ``returned_to`` of the end, as Celery tells this."""
        if self.returned_to:
            symbol_by_name(self.returned_to)(self, *end)


def _carried_out(declared: Callable[..., Any], by: str) -> Callable[..., Any]:
    @functools.wraps(declared)
    def run(*args: Any, **kwargs: Any) -> Any:
        return symbol_by_name(by)(*args, **kwargs)

    return run


def _waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return wait(function(*args, **kwargs))

    return run


class BrokerDown(BrokerUnavailable, OperationalError):
    """The broker took no task. It is Celery's ``OperationalError`` as well, for callers that catch that."""


class LaneTask(Task):
    """A task that sends requests through a lane: on the loop, with nothing of its texts shown anywhere."""

    abstract = True
    blocking = False
    resultrepr_maxsize = 200
    Request = "penstock.workers.request:ShortRequest"

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Refuse, before anything is sent, a message that a newer version wrote.

        Raises:
            FormatTooNew: to the caller, as the task's own error.
        """
        MESSAGE.check(self.request.get(MESSAGE_HEADER), f"{self.name} {task_id}")

    def signature(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Return a signature, as Celery does; it bears its queue and format, for apps that know nothing of ours.

        So an app's own worker sends it on where it belongs, wherever it stands in a canvas.
        """
        made = super().signature(args, *rest, **options)
        queue = lane_of(made, prefix_of(self.app))
        if queue and not has_address(made.options):
            made.options["queue"] = queue
        made.options["headers"] = {MESSAGE_HEADER: MESSAGE.number, **(made.options.get("headers") or {})}
        return made

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send the task, as Celery does.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
            EndpointNotFound: the registry can be read, a worker is alive, and neither knows the endpoint.
        """
        try:
            return super().apply_async(args, kwargs, *rest, **options)
        except Exception as exc:
            if not _of_broker(exc):
                raise
            raise BrokerDown(
                f"the broker took no task ({str(exc.__cause__ or exc).rstrip('.')}): start it, with `penstock worker` "
                "where it is the embedded one, or set PENSTOCK_BROKER_URL to one that runs"
            ) from exc


def _of_broker(exc: Exception) -> bool:
    from redis.exceptions import RedisError  # loaded by now, where it matters

    # Before it sends, Celery subscribes to the result; that it cannot, it says with a RuntimeError.
    return isinstance(exc.__cause__ if isinstance(exc, RuntimeError) else exc, OperationalError | RedisError)


class ShortReprs(AMQP):
    """Messages of our tasks: they carry their format, and their ``argsrepr`` says how much is in them and not what.

    The ``argsrepr`` is what logs, events and Flower show.
    """

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:  # noqa: N802
        """Consume queues, as Celery does: none of them on Redis, where the feeder takes messages."""
        if is_redis(self.app.conf.broker_url or ""):
            return self.Consumer(channel, queues=[], accept=accept or self.app.conf.accept_content, **options)
        return super().TaskConsumer(channel, queues, accept, **options)

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """Build a message, as Celery does."""
        if name in NOUNS:
            if options.get("argsrepr") is None:
                options["argsrepr"] = describe(name, args, kwargs)
            options["kwargsrepr"] = "{}"
        message = super().as_task_v2(task_id, name, args, kwargs, *rest, **options)
        cause = self.app.current_worker_task
        if cause is None or not sent_by_others(cause.request):  # what others' tasks lead to is theirs as well
            message.headers[MESSAGE_HEADER] = MESSAGE.number
        return message


def describe(name: str, args: Any, kwargs: Any) -> str:
    """Return what may be shown of a task's arguments, whatever they are: ``(docs-embeddings, 128 texts)``."""
    args = args if isinstance(args, list | tuple) else ()
    kwargs = kwargs if isinstance(kwargs, Mapping) else {}
    values = list(kwargs.values())
    given = args[0] if args else (values[0] if values else None)
    endpoint = args[1] if len(args) > 1 else kwargs.get("endpoint_id")
    count = len(given) if isinstance(given, list | tuple) else 1
    noun = NOUNS.get(name, "item")
    shown = [str(endpoint)[:_LONGEST_NAME]] if isinstance(endpoint, str) else []
    return f"({', '.join([*shown, f'{count} {noun}' + ('s' if count != 1 else '')])})"
