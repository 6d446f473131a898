"""A result back end for an application's own Celery app, of any version from 5.4, that sees our results among its own.

::

    app = Celery("mine", broker="redis://localhost/0", backend="penstock+redis://localhost/0")

An app's own results stay as they are, and where they are. It is Celery's Redis back end in all else.
"""

from __future__ import annotations

from typing import Any

from celery.signals import before_task_publish

from penstock.config.formats import MESSAGE, MESSAGE_HEADER
from penstock.config.names import TASKS
from penstock.config.settings import load_settings
from penstock.workers.results import serializers
from penstock.workers.results.places import TwoPlaces


class HostBackend(TwoPlaces):
    """See the module. Where ours are, ``PENSTOCK_KEY_PREFIX`` says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        serializers.register()
        self.other_prefix = load_settings().key_prefix
        before_task_publish.connect(mark_message, weak=False, dispatch_uid="penstock-results")


def mark_message(sender: Any = None, headers: Any = None, **_: Any) -> None:
    """Mark a message for a task of ours: its sender reads results in our format, vectors as bytes and not as text."""
    if sender in TASKS and isinstance(headers, dict):
        headers.setdefault(MESSAGE_HEADER, MESSAGE.number)
