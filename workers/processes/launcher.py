"""Worker processes of a command: started, started again when they crash, ended with the command.

``workers`` is what commands use that need some; ``penstock worker`` runs a ``ProcessGroup`` of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from penstock.config.errors import BrokerUnavailable, PenstockError
from penstock.config.names import CHUNK_QUEUE, JOB_CLASSES, LOGS, queue_name
from penstock.config.settings import Settings
from penstock.workers.processes.child import READY
from penstock.workers.versions import check_versions

READY_S = 60.0
GRACE_S = 30.0
TICK_S = 0.05
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
# Starts without ever having been ready, after which something is wrong that another start does not cure.
CRASH_LOOP = 3
LOGS_KEPT = 20

# Celery's command line reads these; whatever they mean to other apps, they are not about our workers.
_NOT_PASSED_ON = ("APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "RESULT_SERIALIZER", "CONFIG")

Sink = Callable[[str, BinaryIO], None]


class WorkersFailed(PenstockError):
    """The worker processes cannot be started, or crash each time before they are ready."""

    code = "workers_failed"


@dataclass(frozen=True)
class Role:
    """One worker process: its name, and Celery's arguments for it."""

    name: str
    arguments: tuple[str, ...]


def roles(
    processes: int,
    settings: Settings,
    *,
    concurrency: int | None = None,
    lanes: Sequence[str] = (),
    chunkers: int = 0,
    neighbourly: bool = False,
) -> list[Role]:
    """Plan worker processes.

    Args:
        processes: how many on the asyncio pool, for the lanes.
        settings: for the default concurrency and the level of logs.
        concurrency: tasks in flight in each.
        lanes: endpoint ids, to serve those alone; all lanes, new ones too, when empty.
        chunkers: children of one more process, on Celery's prefork pool, for chunking; 0 for none: then chunking is
            done by the others, in threads.
        neighbourly: look for other workers at start (a second), and listen to them; Celery's default.
    """
    common = ["-l", settings.log_level, "-E"]
    if not neighbourly:
        common += ["--without-mingle", "--without-gossip"]
    if lanes:
        queues = ["-Q", ",".join(queue_name(lane, job_class) for lane in lanes for job_class in JOB_CLASSES)]
    else:
        queues = ["-X", CHUNK_QUEUE] if chunkers else []
    run = f"{os.getpid()}-{next(_runs)}"
    lane_arguments = [*common, "-c", str(concurrency or settings.concurrency), *queues]
    planned = [(f"worker-{number}", lane_arguments) for number in range(1, processes + 1)]
    if chunkers:
        planned.append(("chunker", [*common, "-P", "prefork", "-c", str(chunkers), "-Q", CHUNK_QUEUE]))
    return [Role(name, (*arguments, "-n", f"{name}-{run}@%h")) for name, arguments in planned]


_runs = itertools.count(1)


class WorkerProcess:
    """One worker process of a group, and what is known of it."""

    def __init__(self, role: Role, sink: Sink) -> None:
        self.role, self._sink = role, sink
        self.ready = threading.Event()
        self.failures = 0
        self.finished = False
        self._backoff = FIRST_BACKOFF_S
        self._next_start = 0.0
        self._started = 0.0
        self._channel: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C is for the command, which says what it means."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock.workers.processes.child", str(theirs.fileno()), *self.role.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._started, self._channel = time.monotonic(), ours
        assert self.process.stdout is not None
        for target, argument in ((self._read_output, self.process.stdout), (self._await_ready, ours)):
            threading.Thread(target=target, args=(argument,), daemon=True, name=f"penstock-{self.role.name}").start()

    def _read_output(self, output: BinaryIO) -> None:
        with output:
            self._sink(self.role.name, output)

    def _await_ready(self, channel: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if channel.recv(len(READY)):
                self.ready.set()

    def check(self, stopping: bool) -> None:
        """Note that the process has ended, and start another one unless the group is stopping."""
        if self.process is None:
            if not stopping and time.monotonic() >= self._next_start:
                self.start()
            self.finished = stopping
            return
        if self.process.poll() is None:
            return
        self._close()
        was_ready = self.ready.is_set()
        self.ready.clear()
        self.failures = 0 if was_ready else self.failures + 1
        if was_ready and time.monotonic() - self._started > 60:
            self._backoff = FIRST_BACKOFF_S
        self._next_start = time.monotonic() + self._backoff * random.uniform(0.5, 1)
        self._backoff = min(2 * self._backoff, LONGEST_BACKOFF_S)
        self.process = None
        self.finished = stopping

    def send(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it and its children for good."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()


class ProcessGroup:
    """The worker processes of one command.

    Args:
        roles: what to start.
        sink: is given the name and the output of each process, in a thread of its own, to read to its end.

    Raises:
        ConfigurationError: workers do not start on this Celery.
    """

    def __init__(self, roles: Sequence[Role], sink: Sink) -> None:
        check_versions()
        self.processes = [WorkerProcess(role, sink) for role in roles]
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="penstock-group", daemon=True)

    def start(self) -> None:
        """Start all, and tend to them from a thread."""
        for worker in self.processes:
            worker.start()
        self._thread.start()

    def _watch(self) -> None:
        while not all(worker.finished for worker in self.processes):
            for worker in self.processes:
                worker.check(self._stopping)
            time.sleep(TICK_S)

    @property
    def ready(self) -> bool:
        """Whether every process takes tasks."""
        return all(worker.ready.is_set() for worker in self.processes)

    @property
    def crash_looping(self) -> str | None:
        """The name of a process that crashes each time before it is ready, None if there is none."""
        return next((worker.role.name for worker in self.processes if worker.failures >= CRASH_LOOP), None)

    @property
    def running(self) -> bool:
        """Whether any process is left."""
        return self._thread.is_alive()

    def signal(self, number: int) -> None:
        """Stop the group: SIGTERM lets it finish what is in flight, SIGQUIT hands that back, SIGKILL asks nobody."""
        self._stopping = True
        for worker in self.processes:
            if number == signal.SIGKILL:
                worker.kill()
            else:
                worker.send(number)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no process is left; False if there still is one after ``timeout_s`` seconds."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def await_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until all take tasks.

        Raises:
            WorkersFailed: they do not.
        """
        end = time.monotonic() + timeout_s
        while not self.ready:
            if self.crash_looping or time.monotonic() > end:
                raise WorkersFailed(
                    f"{self.crash_looping or 'a worker process'} does not start: run `penstock worker` to see why"
                )
            time.sleep(TICK_S)

    def stop(self, *, cold: bool, grace_s: float = GRACE_S) -> None:
        """End all: warm or cold, then cold, then by force."""
        for number, seconds in ((signal.SIGQUIT if cold else signal.SIGTERM, grace_s), (signal.SIGQUIT, 10.0)):
            self.signal(number)
            if self.wait(seconds):
                return
        self.signal(signal.SIGKILL)
        self.wait(10)


@contextlib.contextmanager
def workers(
    n: int,
    settings: Settings,
    *,
    concurrency: int | None = None,
    lanes: Sequence[str] = (),
    chunkers: int = 0,
    wait: bool = True,
) -> Iterator[ProcessGroup]:
    """Have ``n`` worker processes inside the block, which end with it, or with this process if that is killed.

    Their logs are files under ``logs`` in the home. Left by an exception, they hand back what is in flight; left
    otherwise, they finish it.

    Args:
        n: processes on the asyncio pool.
        settings: ours; the processes read them from the environment again.
        concurrency, lanes, chunkers: as for ``roles``.
        wait: until they take tasks.

    Raises:
        WorkersFailed: they do not start; the message names the log.
    """
    folder = settings.home / LOGS
    group = ProcessGroup(
        roles(n, settings, concurrency=concurrency, lanes=lanes, chunkers=chunkers), _into_files(folder)
    )
    cold = True
    try:
        group.start()
        if wait:
            try:
                group.await_ready()
            except WorkersFailed as exc:
                raise WorkersFailed(f"{exc}; the logs are in {folder}") from None
        yield group
        cold = False
    finally:
        group.stop(cold=cold)


def _into_files(folder: Path) -> Sink:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.glob("worker-*.log"), key=lambda path: path.stat().st_mtime)
        for path in old[: -LOGS_KEPT or None]:
            path.unlink(missing_ok=True)
    except OSError as exc:
        raise BrokerUnavailable(f"{folder} cannot be written ({exc}): set PENSTOCK_HOME to a folder of yours") from exc

    def write(name: str, output: BinaryIO) -> None:
        with (folder / f"worker-{os.getpid()}-{name}.log").open("ab") as log:
            for channel in output:
                log.write(channel)
                log.flush()

    return write


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_PASSED_ON and not name.startswith("CELERY_")
    }
