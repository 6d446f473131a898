"""``penstock worker``: workers in the foreground, on the configured broker or the embedded one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any, BinaryIO

import typer

from penstock.cli import output
from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import state_url
from penstock.workers.embedded.broker import Urls, broker
from penstock.workers.processes.launcher import ProcessGroup, WorkersFailed, roles

POLL_S = 0.2
# What the command does at the first, second and third request to stop.
_STEPS: tuple[tuple[int, str], ...] = (
    (signal.SIGTERM, "finishing what is in flight; again: hand it back and stop at once"),
    (signal.SIGQUIT, "handing back what is in flight; again: kill"),
    (signal.SIGKILL, "killed"),
)


def command(
    processes: Annotated[
        int | None, typer.Option(min=0, help="Worker processes for the lanes. [default: the CPUs, 2 at most]")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Tasks in flight per process. [default: PENSTOCK_CONCURRENCY]")
    ] = None,
    lanes: Annotated[
        str | None, typer.Option(help="Serve these endpoints alone: ids with commas between. [default: all]")
    ] = None,
    chunkers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes for chunking. [default: the CPUs, 4 at most; none with --lanes]"),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds to finish what is in flight, at the end; the rest is handed back.")
    ] = 30.0,
) -> None:
    """Run workers for the lanes, in the foreground.

    Ctrl-C or SIGTERM finishes what is in flight and ends; once more hands it back and ends at once. A process that
    crashes is started again. For more of Celery's own flags there is `celery -A penstock.workers.app worker`.
    """
    settings = load_settings()
    cpus = os.cpu_count() or 1
    chosen = [lane.strip() for lane in (lanes or "").split(",") if lane.strip()]
    if chunkers is None:
        chunkers = 0 if chosen else min(4, cpus)
    with broker(settings) as found:
        _check_lanes(chosen, settings, found)
        planned = roles(
            min(2, cpus) if processes is None else processes,
            settings,
            concurrency=concurrency,
            lanes=chosen,
            chunkers=chunkers,
            neighbourly=True,
        )
        if not planned:
            raise typer.BadParameter("0 processes and 0 chunkers are nothing to run", param_hint="--processes")
        code = _run(ProcessGroup(planned, _prefixed(max(len(role.name) for role in planned))), grace)
    raise typer.Exit(code)


def _check_lanes(lanes: list[str], settings: Settings, found: Urls) -> None:
    if not lanes:
        return
    with connect(state_url(found.broker, found.results)) as client:
        registry = Registry(client, settings)
        for lane in lanes:
            registry.find(lane)


def _run(group: ProcessGroup, grace_s: float) -> int:
    """Run a group of processes until it is asked to stop. Returns the exit code."""
    asked: list[int] = []
    # Before the processes start: a signal that comes at once is heeded too.
    previous = _on_signals(asked.append)
    steps = _ShutdownSteps(group, grace_s)
    try:
        group.start()
        announced = False
        while not group.wait(POLL_S):
            if group.ready and not announced:
                announced = True
                output.note(f"{len(group.processes)} processes take tasks; Ctrl-C to stop", "green")
            if group.crash_looping and not asked:
                raise WorkersFailed(f"{group.crash_looping} crashes each time it starts; its last lines above say why")
            steps.follow(asked)
    finally:
        group.stop(cold=True, grace_s=5)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return output.INTERRUPTED if asked and asked[0] == signal.SIGINT else output.DONE


class _ShutdownSteps:
    """How a group is stopped: warmly, then, when asked again or after a time, at once."""

    def __init__(self, group: ProcessGroup, grace_s: float) -> None:
        self._group, self._grace_s = group, grace_s
        self._announced = 0
        self._heeded = 0
        self._since = 0.0

    def follow(self, asked: Sequence[int]) -> None:
        """Take the next step for each signal that came, and when the first step has had its time."""
        while self._heeded < len(asked):
            self._take(1 if asked[self._heeded] == signal.SIGQUIT else 0)
            self._heeded += 1
        if self._announced == 1 and time.monotonic() - self._since > self._grace_s:
            self._take(1)

    def _take(self, at_least: int) -> None:
        step = max(self._announced, at_least)
        if step < len(_STEPS):
            number, message = _STEPS[step]
            output.note(message, "yellow")
            self._group.signal(number)
            self._announced, self._since = step + 1, time.monotonic()


def _on_signals(heed: Callable[[int], None]) -> dict[int, Any]:
    def handler(number: int, frame: FrameType | None) -> None:
        heed(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
    return {number: signal.signal(number, handler) for number in numbers}


def _prefixed(width: int) -> Callable[[str, BinaryIO], None]:
    """Return a sink that prints each line with its process's name before it, lines whole."""
    lock = threading.Lock()

    def write(name: str, lines: BinaryIO) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip("\n")
            if text:
                with lock:
                    print(f"{name:{width}} | {text}", file=sys.stdout, flush=True)

    return write
