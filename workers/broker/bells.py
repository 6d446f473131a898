"""Bells: short lists on which workers with nothing to do wait, one a queue, rung whenever a message is put on it.

A lost ring costs at most a second, so no ring needs to be in one step with its message.
"""

from __future__ import annotations

from typing import Any

#: Rings that a bell keeps: as many workers are woken at once, and a bell that nobody hears grows no further.
BELLS = 16


def ring(client: Any, bell: str) -> None:
    """Ring a bell over a client that leaves keys as they are."""
    with client.pipeline(transaction=False) as pipe:
        pipe.lpush(bell, 1)
        pipe.ltrim(bell, 0, BELLS - 1)
        pipe.execute()
