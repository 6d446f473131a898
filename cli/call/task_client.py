"""One task from the command line: a broker, a worker if nobody else has one, the task, its result.

With a broker configured the workers that run there do it; else a worker process of our own does, and ends with us.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import redis
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

from penstock.cli import output
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import EndpointNotFound, InputInvalid, PenstockError, WrongTaskType
from penstock.config.names import LOGS
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import state_url
from penstock.workers.directory.announcements import ask
from penstock.workers.embedded.broker import broker
from penstock.workers.processes.launcher import ProcessGroup, WorkersFailed, workers

TICK_S = 0.2
#: Seconds without a result after which it is asked whether any worker runs.
PATIENCE_S = 5.0
#: Tasks in flight of our own worker.
CONCURRENCY = 8


class TaskClient:
    """Where a command sends its tasks."""

    def __init__(self, endpoint: Endpoint, settings: Settings, group: ProcessGroup | None) -> None:
        from penstock.workers.app import app

        self.endpoint, self.settings, self._group = endpoint, settings, group
        self._app: Any = app
        self._asked = False

    def send(self, name: str, given: Any, **kwargs: Any) -> AsyncResult:
        """Send a task, by its name, to the endpoint's lane."""
        return self._app.send_task(name, args=(given, self.endpoint.inference_id), kwargs=kwargs)

    def wait(self, result: AsyncResult, tick: Callable[[], object] = lambda: None) -> Any:
        """Return a task's result; ``tick`` is called now and then.

        Raises:
            PenstockError: the task's own.
        """
        begun = time.monotonic()
        with self.revoking(result):
            while True:
                with contextlib.suppress(CeleryTimeoutError):
                    return result.get(timeout=TICK_S)
                tick()
                self.check(time.monotonic() - begun)

    def check(self, waited_s: float) -> None:
        """Say so if nobody is there to do the work.

        Raises:
            WorkersFailed: our own worker crashes each time.
        """
        if self._group is not None and self._group.crash_looping:
            raise WorkersFailed(f"the worker crashes each time it starts; its logs are in {self.settings.home / LOGS}")
        if self._group is None and not self._asked and waited_s > PATIENCE_S:
            self._asked = True
            if not self._app.control.ping(timeout=1.0):
                output.warn("no worker answers: the task waits in the broker until one runs (`penstock worker`)")

    @contextlib.contextmanager
    def revoking(self, result: AsyncResult) -> Iterator[None]:
        """Call the task off when its user loses patience (Ctrl-C)."""
        try:
            yield
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # the user wants to go; what then fails is nobody's concern
                result.revoke(terminate=True)
                end = time.monotonic() + 1.0
                while not result.ready() and time.monotonic() < end:
                    time.sleep(0.05)
            raise
        except TaskRevokedError as exc:
            raise PenstockError("somebody called the task off") from exc


@contextlib.contextmanager
def task_client(inference_id: str, task_types: Sequence[TaskType]) -> Iterator[TaskClient]:
    """Have what one task needs inside the block.

    Raises:
        EndpointNotFound, WrongTaskType: there is no such endpoint for it.
        BrokerUnavailable, WorkersFailed: there is no broker, or no worker to be had.
    """
    settings = load_settings()
    with contextlib.ExitStack() as stack:
        urls = stack.enter_context(broker(settings))
        with connect(state_url(urls.broker, urls.results)) as client:
            endpoint = _find(client, settings, inference_id)
        if endpoint.task_type not in task_types:
            raise WrongTaskType(
                f"[{inference_id}] is a {endpoint.task_type} endpoint: this needs one of type "
                f"{' or '.join(task_types)}; see `penstock endpoint list`"
            )
        group = None
        if settings.broker_url is None:
            with output.err.status("starting a worker ..."):
                group = stack.enter_context(workers(1, settings, concurrency=CONCURRENCY, lanes=[inference_id]))
        yield TaskClient(endpoint, settings, group)


def _find(client: redis.Redis, settings: Settings, inference_id: str) -> Endpoint:
    try:
        return Registry(client, settings).find(inference_id)
    except EndpointNotFound:
        if inference_id in ask(client, settings.key_prefix, [inference_id]).ids:
            raise EndpointNotFound(
                f"[{inference_id}] is in the endpoints file of a worker, and a command has to know what it is: set "
                "PENSTOCK_ENDPOINTS_FILE here as it is there"
            ) from None
        raise


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``--set KEY=VALUE``: JSON where they are, else texts.

    Raises:
        InputInvalid: a pair has no ``=``.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise InputInvalid(f"--set {pair}: give KEY=VALUE, for instance --set temperature=0.2")
        try:
            found[name.strip()] = orjson.loads(text)
        except orjson.JSONDecodeError:
            found[name.strip()] = text
    return found
