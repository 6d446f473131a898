"""What a worker of ours does as it starts, on Celery's signals: join the embedded broker, heed ``-P``, ``-Q``, ``-X``.

Signals reach every Celery app of a process; these handlers mind ours alone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Any

import click
from celery import signals
from click.core import ParameterSource

from penstock.config.errors import PenstockError
from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import embedded_broker
from penstock.workers.pool.pool import TaskPool
from penstock.workers.results.backend import backend_url


def worker_of(app: Any) -> Any:
    """Return the class of an app's workers, and from now on do at its signals what workers of ours do."""
    app.works = True
    return app.subclass_with_self("celery.apps.worker:Worker")


@signals.celeryd_init.connect(weak=False)
def join_embedded_broker(instance: Any, conf: Any, **_: Any) -> None:
    """Start or join the embedded broker where none is configured, and stay its user until the process ends."""
    if not getattr(instance.app, "works", False):
        return
    try:
        settings = load_settings()
        if settings.broker_url is not None:
            return
        stack = contextlib.ExitStack()
        url = stack.enter_context(embedded_broker(settings))
        atexit.register(stack.close)
    except PenstockError as exc:
        # Celery logs what handlers raise, and goes on: only an exit is heeded.
        print(f"error: {exc}", file=sys.stderr)
        raise SystemExit(exc.exit_code) from exc
    conf.broker_url = url
    if settings.result_backend is None:
        conf.result_backend = backend_url(url)


@signals.worker_init.connect(weak=False)
def apply_command_line(sender: Any, **_: Any) -> None:
    """Tell what the command line said itself from what our configuration put in its place."""
    if not getattr(sender.app, "works", False):
        return
    context = click.get_current_context(silent=True)
    given = context.params if context else {}
    sender.chosen_queues = _names(given.get("queues"))
    sender.excluded_queues = frozenset(_names(given.get("exclude_queues")) or ())
    # Celery reads an explicit ``-P prefork`` as "the default", and so takes the configured pool.
    if context and _explicit(context, "pool") and sender.pool_cls is TaskPool:
        sender.pool_cls = "prefork"
        if not _explicit(context, "concurrency"):
            sender.concurrency = os.cpu_count() or 1


def _explicit(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _names(given: Any) -> list[str] | None:
    """Return queues named on the command line, None where none are."""
    names = given.split(",") if isinstance(given, str) else list(given or ())
    return [name.strip() for name in names if name.strip()] or None
