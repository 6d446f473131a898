"""Queues in what follows a task: signatures in chains, chords and links that other apps' workers are to carry out.

Our workers know no other app's routes. The process that sends a canvas does: there each signature is given its queue,
by the full name that it has on the broker, prefix included, which holds for any app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.canvas import Signature

from penstock.config.names import CHUNK_QUEUE, CHUNK_TASK, TASKS, queue_name

_FOLLOWING = ("chain", "link", "link_error", "chord")
_INNER = ("tasks", "header", "body")
_ADDRESS = ("queue", "exchange", "routing_key")


def addressed(options: Mapping[str, Any], sender: Celery) -> dict[str, Any]:
    """Return the options of a task whose followers have queues.

    Args:
        options: as of ``apply_async``.
        sender: the app that sends. What is its own, it and its workers route themselves.
    """
    return {name: _each(value, sender) if name in _FOLLOWING else value for name, value in options.items()}


def prefix_of(app: Any) -> str:
    """Return what an app's transport puts before the names of queues."""
    return str((app.conf.broker_transport_options or {}).get("global_keyprefix") or "")


def lane_of(signature: Signature, prefix: str) -> str | None:
    """Return the full name of the queue of a task of ours, None where its signature names no endpoint.

    Data comes first: a signature of one argument, which is a text, gets its data from the task before it.
    """
    if signature.task == CHUNK_TASK:
        return prefix + CHUNK_QUEUE
    given = signature.kwargs.get("endpoint_id")
    if given is None and len(signature.args) > 1:
        given = signature.args[1]
    elif given is None and len(signature.args) == 1 and not signature.immutable:
        given = signature.args[0]
    return prefix + queue_name(given) if isinstance(given, str) and given else None


def has_address(options: Mapping[str, Any]) -> bool:
    """Whether the options of a task say where it goes."""
    return any(options.get(name) for name in _ADDRESS)


def _each(value: Any, sender: Celery) -> Any:
    if isinstance(value, list | tuple):
        return [_each(each, sender) for each in value]
    return _signature(value, sender) if isinstance(value, Signature) else value


def _signature(given: Signature, sender: Celery) -> Signature:
    made = given.clone()
    for name in _INNER:
        if name in made.kwargs:
            made.kwargs[name] = _each(made.kwargs[name], sender)
    made["options"] = addressed(made.options, sender)
    if given.app is not sender and made.task not in TASKS and not has_address(made.options):
        made.options.update(_queue(given))
    return made


def _queue(signature: Signature) -> dict[str, str]:
    app = signature.app
    task = app.tasks.get(signature.task)
    if task is None or signature.subtask_type:
        return {}
    given = {name: value for name in _ADDRESS if (value := getattr(task, name, None))}
    routed = app.amqp.router.route(given, signature.task, signature.args, signature.kwargs, task)
    queue = routed.get("queue") or app.conf.task_default_queue
    return {"queue": prefix_of(app) + str(getattr(queue, "name", queue))}
