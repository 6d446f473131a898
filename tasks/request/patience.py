"""Waiting for a broker that is away: a text is not at fault for it, and what was paid for is not let go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds between two attempts.
AGAIN_S = 1.0


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` gives, called again for as long as the broker cannot be reached.

    It may be carried out more than once: an answer may be lost. No result could be stored meanwhile either.
    """
    while True:
        try:
            return await call()
        except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
            logger.warning("the broker is away (%s); what a task has got is kept until it is back", exc)
            await asyncio.sleep(AGAIN_S)
