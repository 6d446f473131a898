"""A Celery app as anybody's, inside our workers: for what passes between them and apps that are not ours (``senders``).

A task that no worker of ours knows belongs to another app: it is handed to that app's queue as any Celery app would.
"""

from __future__ import annotations

from typing import Any

from celery import Celery


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
