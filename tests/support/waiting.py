"""Waiting for something to become true, with a reason that is shown when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], reason: str, timeout: float = 15.0, every: float = 0.02) -> T:
    """Call ``predicate`` until it is truthy and return what it gave.

    Args:
        predicate: asked every ``every`` seconds.
        reason: what is waited for; the message of the failure.
        timeout: seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {timeout:g} s still not: {reason}")
        time.sleep(every)
