"""The embedded broker's supervisor: ``python -m penstock.workers.embedded.supervisor HOME SERVER_PROGRAM``.

It starts the server, starts it again when it ends, and stops it when its last user has left. It goes to the
background at once: its starter gets exit code 0 when it supervises, 3 when another one does already. It imports the
standard library only, so that it is up in some tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from penstock.workers.embedded.home import BrokerHome

ANOTHER_SUPERVISES = 3
TICK_S = 0.1
START_S = 15.0
STOP_S = 10.0
LONGEST_BACKOFF_S = 5.0
LOG_BYTES = 1_000_000
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def server_arguments(home: BrokerHome, socket: Path) -> list[str]:
    """Return the server's arguments.

    The append-only file is written before a command is answered and synchronised with the disk each second: a
    killed server loses nothing, a machine that loses power at most the last second, and it costs a tenth of
    synchronising each write. Nothing may be evicted, for queues and ledgers are no cache.
    """
    options = {
        "port": ["0"],
        "unixsocket": [str(socket)],
        "unixsocketperm": ["700"],
        "dir": [str(home.folder)],
        "daemonize": ["no"],
        "save": [""],
        "appendonly": ["yes"],
        "appendfsync": ["everysec"],
        "no-appendfsync-on-rewrite": ["yes"],
        "maxmemory-policy": ["noeviction"],
        # Results are published as well as stored; a reader that is busy for a moment must not be cut off.
        "client-output-buffer-limit": ["pubsub", "256mb", "128mb", "60"],
    }
    return [part for name, values in options.items() for part in (f"--{name}", *values)]


class Supervisor:
    """Keeps one server running for one home. Make it with the ``supervisor`` lock held."""

    def __init__(self, home: BrokerHome, program: str) -> None:
        self.home, self.program = home, program
        self.server: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def run(self) -> None:
        """Supervise until the last user has left or a signal asks to stop."""
        backoff = TICK_S
        try:
            while not self.stopping:
                started = time.monotonic()
                self._start()
                if not self._await_answer():
                    self._record_failure()
                self._watch()
                backoff = TICK_S if time.monotonic() - started > 10 else min(2 * backoff, LONGEST_BACKOFF_S)
                self._rest(backoff)
        finally:
            self._stop()

    def _start(self) -> None:
        with self.home.lock("server", wait_s=0.5) as lock:
            if lock is None:
                self._end_stray()
                return
            socket = self.home.make_socket_folder()
            # The server inherits the lock: no other one starts on this data for as long as it lives.
            self.server = subprocess.Popen(
                [self.program, *server_arguments(self.home, socket)],
                stdin=subprocess.DEVNULL,
                cwd=self.home.folder,
                pass_fds=(lock,),
                preexec_fn=_dies_with_parent(),
            )
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(self.server.pid).encode(), 0)

    def _end_stray(self) -> None:
        """End a server whose supervisor is gone. The lock is held by it, so the number in the file is its own."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.home.folder / "server").read_text())
            log(f"ending the server {pid} of a lost supervisor")
            os.kill(pid, signal.SIGTERM)
            with self.home.lock("server", wait_s=STOP_S) as gone:
                if gone is None:
                    os.kill(pid, signal.SIGKILL)

    def _await_answer(self) -> bool:
        end = time.monotonic() + START_S
        while self.server and self.server.poll() is None and not self.stopping:
            state = self.home.state()
            if state == "up":
                self.home.failure.unlink(missing_ok=True)
                return True
            if state == "down" and time.monotonic() > end:
                log(f"the server does not answer on its socket after {START_S:g} s")
                self.server.kill()
                self.server.wait()
            self._rest(0.01)
        return False

    def _record_failure(self) -> None:
        """Leave the reason where users look for it; without one that has ever worked, there is nothing to retry."""
        if self.server is None or self.stopping:
            return
        code = self.server.poll()
        self.home.failure.write_text(f"the server ended with code {code}\n{self.home.last_words()}", encoding="utf-8")

    def _watch(self) -> None:
        while self.server and self.server.poll() is None and not self.stopping:
            self._rest(TICK_S)
        if self.server and self.server.returncode is not None and not self.stopping:
            log(f"the server {self.server.pid} ended with code {self.server.returncode}")

    def _rest(self, seconds: float) -> None:
        time.sleep(seconds)
        with self.home.lock("users") as nobody_else:
            if nobody_else is not None:
                # Whoever comes now waits for this lock until we are gone, and then starts anew.
                self.stopping = True
                self._stop()

    def _stop(self) -> None:
        server, self.server = self.server, None
        if server is None:
            return
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        self.home.remove_socket()


def log(message: str) -> None:
    """Write a line to the broker's log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), f"supervisor {os.getpid()}:", message, flush=True)


def _dies_with_parent() -> Callable[[], None] | None:
    """Return what makes a child end when we are killed; None where the system has nothing of the kind."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # killed in between
            os._exit(1)

    return ask


def _go_to_background(home: BrokerHome) -> None:
    """Leave the starter: it waits for no child of its own, and holds nothing open for us."""
    if os.fork():
        os._exit(0)
    with contextlib.suppress(OSError):
        if home.log.stat().st_size > LOG_BYTES:
            home.log.replace(home.log.with_suffix(".log.1"))
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)


def main(home_folder: str, program: str) -> int:
    """Take the lock, go to the background, supervise."""
    home = BrokerHome(Path(home_folder))
    # A user's look at the lock takes it for an instant.
    with home.lock("supervisor", wait_s=1.0) as lock:
        if lock is None:
            return ANOTHER_SUPERVISES
        _go_to_background(home)
        supervisor = Supervisor(home, program)

        def stop(number: int, frame: FrameType | None) -> None:
            supervisor.stopping = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        try:
            supervisor.run()
        except Exception:
            home.failure.write_text(traceback.format_exc(limit=-1), encoding="utf-8")
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
