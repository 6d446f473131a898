"""A child process of a test: its output in a file, ended by its pid with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.waiting import wait_until


class Child:
    """A running program with its standard output and error in ``log``.

    It leads a session of its own, so that ``kill_all`` reaches what it started, and nothing else.
    """

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None):
        self.log_path = log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def wait_for(self, text: str, timeout: float = 30.0, count: int = 1) -> None:
        """Wait until ``text`` stands in the log ``count`` times; fail with the log's end if the process ends first."""

        def seen() -> bool:
            if self.log.count(text) >= count:
                return True
            assert self.running, f"ended with {self.exit_code} before {text!r}:\n{self.log[-3000:]}"
            return False

        try:
            wait_until(seen, f"{text!r} in the log", timeout)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log[-3000:]}") from None

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """kill -9 of this process alone."""
        self.send(signal.SIGKILL)
        self.wait()

    def kill_all(self) -> None:
        """End it, kindly first, and then whatever is left in its session."""
        if self.running:
            self.send(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(5)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(5)


def alive(pid: int) -> bool:
    """Whether a process with this pid runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return False
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"
