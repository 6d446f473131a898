"""Who sent a task, and what passes between our workers and Celery apps that are not ours.

Messages of ours bear their format in a header, and so do those of an app with our result back end. One without it comes
from an app that knows nothing of ours: its result is stored for it as any Celery worker stores one, as JSON under
Celery's usual key. What such a task leads to (the rest of its chain, its chord's body) is its sender's as well.
"""

from __future__ import annotations

from typing import Any

from penstock.config.formats import MESSAGE_HEADER


def sent_by_others(request: Any) -> bool:
    """Whether a task's sender is an app that does not read our results.

    Args:
        request: the task's, or None where nobody knows whose it is.
    """
    if request is None or getattr(request, "is_eager", False) or getattr(request, "called_directly", False):
        return False
    return getattr(request, MESSAGE_HEADER, None) is None
