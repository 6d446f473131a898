"""Who sent a task, and what passes between our workers and Celery apps that are not ours.

Messages of ours bear their format in a header, and so do those of an app with our result back end. One without it comes
from an app that knows nothing of ours: its result is stored for it as any Celery worker stores one, as JSON under
Celery's usual key. What such a task leads to (the rest of its chain, its chord's body) is its sender's as well.

A task that no worker of ours knows belongs to another app: it is handed to that app's queue as any Celery app would.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from penstock.config.formats import MESSAGE_HEADER

#: The queue of an app that has not been told otherwise.
USUAL_QUEUE = "celery"


def sent_by_others(request: Any) -> bool:
    """Whether a task's sender is an app that does not read our results.

    Args:
        request: the task's, or None where nobody knows whose it is.
    """
    if request is None or getattr(request, "is_eager", False) or getattr(request, "called_directly", False):
        return False
    return getattr(request, MESSAGE_HEADER, None) is None


class PlainApp(Celery):
    """A Celery app as anybody's on our broker: it sends without our prefix and compression, and stores JSON."""

    def on_configure(self) -> None:
        """Celery asks for the configuration: read the settings."""
        from penstock.workers.configuration import plain_configuration

        self.config_from_object(plain_configuration())

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send a task to the queue of the app that it belongs to, ``celery`` where none is named."""
        # A group lends the producer of the app that sends it, which puts our prefix before every queue. The other app
        # makes its queue itself: nothing of it is declared here.
        own = {name: value for name, value in options.items() if name not in ("producer", "publisher", "connection")}
        return super().send_task(name, args, kwargs, **{**own, "declare": []})


def plain_app() -> PlainApp:
    """Make one, with the settings of its first use."""
    return PlainApp("penstock-plain", set_as_current=False)
