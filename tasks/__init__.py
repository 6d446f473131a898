"""What is done: chunk, embed, complete, generate images; and backfills.

Enter at ``declarations``, the Celery tasks as callers see them, or at a task's folder (``embedding``, ``completion``,
``images``, ``chunking``): ``task`` in each carries it out. ``request`` is what every call shares, ``services`` the wire
formats, ``backfill`` runs over a corpus. It knows nothing of commands. The public names cost nothing until they are
used: an application that imports them starts no slower, and who only validates an endpoint loads no Celery app.
"""

from importlib import import_module
from typing import Any

from celery.local import PromiseProxy

if __name__ != "penstock.tasks":
    raise ImportError("import penstock.tasks: this folder is no package of its own")

__all__ = ["chunk", "complete", "embed", "generate_image", "result_from", "stream"]

_TASKS = ("chunk", "complete", "embed", "generate_image")
_FUNCTIONS = {"result_from": "penstock.workers.results.mapping", "stream": "penstock.tasks.completion.streaming"}


def __getattr__(name: str) -> Any:
    if name in _TASKS:
        # As Celery's own decorators do, before an app is complete: the task is made when it is first looked at.
        value: Any = PromiseProxy(lambda: getattr(import_module("penstock.tasks.declarations"), name))
    elif name in _FUNCTIONS:
        value = getattr(import_module(_FUNCTIONS[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
