"""Loads the Lua scripts, which live in ``.lua`` files in the folder ``lua`` beside the modules that front them.

A script says on lines of their own what stands in front of it: ``-- include: lanes/lane`` is another script,
``-- include: lanes/constants.py`` the constants of a Python module. Each is put in once, those that it includes first.

The first argument of every script is the clock (``lanes/lua/clock.lua``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

import redis
import redis.asyncio
from redis.commands.core import AsyncScript, Script

INCLUDE = re.compile(r"^-- include: (\S+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Return the text of a script and of all that it includes: ``lanes/lane`` is ``workers/lanes/lua/lane.lua``."""
    parts: dict[str, str] = {}
    _collect(name, parts, set())
    return "\n".join(parts.values())


class TimedScript:
    """A script to call, or to await where its client is an asyncio one.

    Args:
        registered: redis-py's.
    """

    def __init__(self, registered: Script | AsyncScript) -> None:
        self._registered = registered

    def __call__(self, keys: Sequence[Any], args: Iterable[Any], clock_ms: float = 0) -> Any:
        """Run it. ``clock_ms`` is the time for a test, in ms; 0 lets the script read the server's own clock."""
        return self._registered(keys=keys, args=[clock_ms or "", *args])


def script(client: redis.Redis, name: str) -> TimedScript:
    """Return a script to call on a blocking client."""
    return TimedScript(client.register_script(source(name)))


def async_script(client: redis.asyncio.Redis, name: str) -> TimedScript:
    """Return a script to await on an asyncio client."""
    return TimedScript(client.register_script(source(name)))


def _collect(name: str, parts: dict[str, str], seen: set[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    text = _constants(name) if name.endswith(".py") else _text(name)
    for included in INCLUDE.findall(text):
        _collect(included, parts, seen)
    parts[name] = text


def _text(name: str) -> str:
    folder, _, file = name.partition("/")
    return files("penstock.workers").joinpath(folder, "lua", f"{file}.lua").read_text(encoding="utf-8")


def _constants(name: str) -> str:
    """Return a module's numbers in capitals as Lua locals."""
    module = import_module("penstock.workers." + name.removesuffix(".py").replace("/", "."))
    numbers = {key: value for key, value in vars(module).items() if key.isupper() and isinstance(value, int | float)}
    return "".join(f"local {key} = {value}\n" for key, value in numbers.items())
