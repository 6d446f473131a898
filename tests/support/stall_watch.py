"""Watches the worker's event loop: nothing that runs on it may block it, in this process or in a worker's.

Wall time would blame a busy machine. So two things are watched that it cannot change: *calls that block* (a socket
with a time-out or none, a sleep, a lock, a child process, a file opened to be written), told at once and however
briefly they took, and *the processor time of one callback*, told above ``MOST_S``.

``start`` patches this process. Worker processes start it by ``support/watched/sitecustomize.py``, wherever
``FOLDER`` is set in the environment, so that workers are watched that our own commands start. What is found goes to
a file of each process in that folder; ``tests/conftest.py`` reads them after each test.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import socket
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

#: Name of the environment variable that has the folder of reports.
FOLDER = "TESTS_STALL_WATCH"
#: Name of the thread that runs the loop (``workers.pool.loop``).
THREAD = "penstock-loop"
#: Seconds of processor time that one callback may take.
MOST_S = 0.5

TESTS = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple(dict.fromkeys([sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")]))

#: What may block, by a part of ``path:function`` somewhere on the stack, and why.
ALLOWED: dict[str, str] = {}

_SOCKET_CALLS = ("recv", "recv_into", "recvfrom", "recvmsg", "send", "sendall", "sendmsg", "sendto", "accept")
_EVENTS = {
    "time.sleep", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "fcntl.flock", "fcntl.lockf",
    "subprocess.Popen", "os.system", "sqlite3.connect", "open",
}  # fmt: skip
_sink = -1
_sleep = time.sleep  # a simulation puts another in its place
_here = threading.local()
_told: dict[tuple[str, str], float] = {}


def start_from_environment() -> None:
    """Start where the environment names a folder."""
    if folder := os.environ.get(FOLDER):
        start(Path(folder))


@functools.cache
def start(folder: Path) -> None:
    """Watch this process's loop from now on."""
    global _sink
    _sink = os.open(folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    sys.addaudithook(_on_audit)
    for name in _SOCKET_CALLS:
        setattr(socket.socket, name, _socket_call(name))
    threading.Condition.wait = _waiting(threading.Condition.wait)  # type: ignore[method-assign]
    asyncio.events.Handle._run = _timed(asyncio.events.Handle._run)  # type: ignore


def read(folder: Path, positions: dict[Path, int]) -> list[str]:
    """Return what processes have reported since ``positions``, which are moved on."""
    found = []
    for path in folder.glob("*.jsonl"):
        data = path.read_bytes()
        new = data[positions.get(path, 0) :]
        whole = new[: new.rfind(b"\n") + 1]
        positions[path] = positions.get(path, 0) + len(whole)
        found += [_words(json.loads(line)) for line in whole.splitlines()]
    return list(dict.fromkeys(found))


def _words(report: dict[str, Any]) -> str:
    return f"{report['what']}\n{report['stack']}"


# What blocks -------------------------------------------------------------------------------------------------------


def _on_loop() -> bool:
    return threading.current_thread().name == THREAD and asyncio._get_running_loop() is not None


def _on_audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in _EVENTS or not _on_loop():
        return
    if event == "socket.connect" and args[0].gettimeout() == 0:
        return
    if event == "open" and not _writes(args):
        return
    if event in ("fcntl.flock", "fcntl.lockf") and args[1] & fcntl.LOCK_NB:
        return
    if event == "time.sleep" and not args[0]:
        return
    _report(event)


def _writes(args: tuple[Any, ...]) -> bool:
    flags = args[2] if len(args) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _socket_call(name: str) -> Callable[..., Any]:
    real = getattr(socket.socket, name)

    @functools.wraps(real)
    def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        if self.gettimeout() != 0 and _on_loop():
            _report(f"socket.{name}")
        return real(self, *args, **kwargs)

    return call


def _waiting(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def wait(self: threading.Condition, timeout: float | None = None) -> Any:
        if timeout != 0 and _on_loop() and not _starts_thread(sys._getframe(1)):
            _report("threading.Condition.wait")
        return real(self, timeout)

    return wait


def _starts_thread(frame: FrameType | None) -> bool:
    """Whether it is ``Thread.start``, which waits until the new thread runs."""
    caller = frame.f_back if frame is not None else None  # of ``Event.wait``
    return caller is not None and caller.f_code is threading.Thread.start.__code__


def _timed(real: Callable[[asyncio.Handle], None]) -> Callable[[asyncio.Handle], None]:
    @functools.wraps(real)
    def run(self: asyncio.Handle) -> None:
        if threading.current_thread().name != THREAD:
            return real(self)
        sampler = _sampler()
        sampler.begun = begun = time.thread_time()
        real(self)
        took = time.thread_time() - begun
        sampler.begun = None
        if took > MOST_S:
            _write(f"a callback that took {took:.2f} s of the processor", sampler.stack or repr(self))
            sampler.stack = ""
        return None

    return run


class _Sampler(threading.Thread):
    """Looks, from a thread of its own, where a callback is that has used half of its time. Use it on the loop."""

    def __init__(self) -> None:
        super().__init__(name="stall-watch", daemon=True)
        self.begun: float | None = None
        self.stack = ""
        self._loop_thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._loop_thread)
        self.start()

    def run(self) -> None:
        while self._loop_thread in sys._current_frames():
            _sleep(MOST_S / 10)
            begun = self.begun
            with contextlib.suppress(OSError):  # the loop's thread has just ended
                if begun is not None and time.clock_gettime(self._clock) - begun > MOST_S / 2:
                    frame = sys._current_frames().get(self._loop_thread)
                    if self.begun == begun and frame is not None:
                        self.stack = "".join(traceback.format_stack(frame)[-14:])


def _sampler() -> _Sampler:
    if not hasattr(_here, "sampler"):
        _here.sampler = _Sampler()
    found: _Sampler = _here.sampler
    return found


# Reports -----------------------------------------------------------------------------------------------------------


def _report(what: str) -> None:
    if getattr(_here, "reporting", False):
        return
    _here.reporting = True
    try:
        stack = traceback.extract_stack(sys._getframe(2))
        ours = [n for n, each in enumerate(stack) if not _is_library(each.filename)]
        if not ours or stack[ours[-1]].filename.startswith(TESTS):
            return  # what a test itself does on the loop is its own affair
        if any(part in f"{each.filename}:{each.name}" for each in stack for part in ALLOWED):
            return
        shown = [stack[n] for n in sorted({*ours, ours[-1] + 1, len(stack) - 1}) if n < len(stack)]
        _write(f"{what} on the event loop", "".join(traceback.format_list(shown)))
    finally:
        _here.reporting = False


def _is_library(path: str) -> bool:
    """Whether a file is neither ours nor the tests'; ours may be installed among the libraries."""
    return f"{os.sep}penstock{os.sep}" not in path and path.startswith((*_LIBRARIES, "<"))


def _write(what: str, stack: str) -> None:
    if (what, stack) in _told and time.monotonic() - _told[what, stack] < 1:
        return  # thousands of tasks may do it
    _told[what, stack] = time.monotonic()
    line = json.dumps({"what": f"{what} (process {os.getpid()})", "stack": stack})
    os.write(_sink, line.encode() + b"\n")
