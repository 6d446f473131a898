"""Loads the Lua scripts, which live in ``.lua`` files in the folder ``lua`` beside the modules that front them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import redis
import redis.asyncio
from redis.commands.core import AsyncScript, Script


@cache
def source(name: str) -> str:
    """Return the text of a script: ``lanes/limiter`` is ``workers/lanes/lua/limiter.lua``."""
    folder, _, file = name.partition("/")
    return files(f"penstock.workers.{folder}").joinpath("lua", f"{file}.lua").read_text(encoding="utf-8")


def script(client: redis.Redis, name: str) -> Script:
    """Return a script to call on a blocking client."""
    return client.register_script(source(name))


def async_script(client: redis.asyncio.Redis, name: str) -> AsyncScript:
    """Return a script to await on an asyncio client."""
    return client.register_script(source(name))
