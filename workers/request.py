"""A message in a worker's hands, as ``celery inspect`` and the worker's events show it: how much is in it, never what.

Named by tasks by string, so that those who only send tasks import nothing of Celery's worker.
"""

from __future__ import annotations

import re
from typing import Any

from celery.worker.request import Request

from penstock.config.formats import FIRST, MESSAGE_HEADER
from penstock.workers.broker.message import LeaseChannel
from penstock.workers.task import describe

#: How the first release, which wrote no numbers, showed a message's arguments: by that its messages are ours.
_OF_OURS = re.compile(r"\((.*, )?\d+ (text|message|prompt)s?(, .*)?\)")


class LeasedRequest(Request):
    """Celery's request, which says when its task begins: put back after that, its message comes as delivered again."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Handle that the pool begins the task."""
        channel = self.message.channel
        if isinstance(channel, LeaseChannel):
            channel.begin(self.message.delivery_tag)
        super().on_accepted(pid, time_accepted)


class ShortRequest(LeasedRequest):
    """Celery's request without its arguments: ``inspect active``, ``reserved``, ``scheduled`` and ``query_task`` would
    send whole documents to whoever asks.

    The short form is made here once more: a plain Celery app that sends our tasks by name puts the beginning of the
    documents into the message's own ``argsrepr``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if _OF_OURS.fullmatch(str(self._request_dict.get("argsrepr"))):
            self._request_dict.setdefault(MESSAGE_HEADER, FIRST)
        shown = {"argsrepr": describe(self._type, self._args, self._kwargs), "kwargsrepr": "{}"}
        self._argsrepr, self._kwargsrepr = shown.values()
        self._request_dict.update(shown)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what is shown, whether it is asked to be ``safe`` or not."""
        info: dict[str, Any] = super().info(safe=True)
        return info
