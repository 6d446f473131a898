"""Traces the way of one text: which of our modules have it in their hands, in the order in which they get it.

A module counts when one of its functions is called with an argument that holds the text: itself, inside containers,
bytes, our own objects, or what a function closes over.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

PACKAGES = ("cli", "config", "stand_in", "tasks", "workers")
MARKER, FILE = "PENSTOCK_TEST_MARKER", "PENSTOCK_TEST_TRACE"
_DEEPEST, _WIDEST = 6, 64


def holds(value: Any, marker: str, depth: int = 0) -> bool:
    """Whether a value holds the marker."""
    if isinstance(value, str):
        return marker in value
    if isinstance(value, bytes | bytearray | memoryview):
        return marker.encode() in bytes(value)
    if depth > _DEEPEST or isinstance(value, int | float | type | FrameType) or value is None:
        return False
    return any(holds(each, marker, depth + 1) for each in _parts(value))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*list(value)[:_WIDEST], *list(value.values())[:_WIDEST]]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)[:_WIDEST]
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    own = type(value).__module__.startswith("penstock.") and hasattr(value, "__dataclass_fields__")
    return [getattr(value, name, None) for name in value.__dataclass_fields__] if own else []


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def module_of(path: str) -> str | None:
    """Return the module of ours that a file is, None for any other file."""
    parts = Path(path).with_suffix("").parts
    for n, part in enumerate(parts):
        if part in PACKAGES and (parts[n - 1] in ("penstock",) or (Path(*parts[:n]) / "pyproject.toml").is_file()):
            return ".".join(parts[n:])
    return None


class Tracer:
    """Notes modules, with the time at which each first had the text, in nanoseconds of the machine's clock."""

    def __init__(self, marker: str, file: Path) -> None:
        self._marker, self._file = marker, file
        self._modules: dict[str, str | None] = {}
        self._seen: set[str] = set()

    def start(self) -> None:
        """Trace all threads that start from now on, and this one."""
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    def stop(self) -> None:
        """Trace no more."""
        threading.setprofile(None)
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        path = frame.f_code.co_filename
        if path not in self._modules:
            self._modules[path] = module_of(path)
        module = self._modules[path]
        if module is None or module in self._seen:
            return
        code = frame.f_code
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        arguments = [frame.f_locals.get(name) for name in code.co_varnames[:count]]
        if any(holds(each, self._marker) for each in arguments):
            self._seen.add(module)
            with self._file.open("a") as file:
                file.write(f"{time.monotonic_ns()} {module} {code.co_name}\n")


def start_from_environment() -> Tracer | None:
    """Start a tracer where the environment asks for one."""
    marker, file = os.environ.get(MARKER), os.environ.get(FILE)
    if not marker or not file:
        return None
    tracer = Tracer(marker, Path(file))
    tracer.start()
    return tracer


def read_way(*files: Path) -> list[str]:
    """Return the modules of several processes' traces, each once, in the order of time."""
    rows = sorted(line.split() for file in files for line in file.read_text().splitlines())
    return list(dict.fromkeys(module for _, module, _ in rows))
