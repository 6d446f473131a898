"""Runs seeds, each alone on an empty server of its own process, and says which fail."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from support.valkey import ValkeyServer

from .journal import Violation
from .scenario import draw
from .world import run


@dataclass(frozen=True)
class Outcome:
    """What came of a seed. ``invariant`` is "" where all held, ``words`` what led to the failure."""

    seed: int
    calls: int
    requests: int
    seconds: float
    cut_short: bool
    invariant: str = ""
    words: str = ""
    log: tuple[str, ...] = ()


@contextmanager
def server() -> Iterator[redis.Redis]:
    """Have a server, and a client of it."""
    folder = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp" if Path("/tmp").is_dir() else None))
    started = ValkeyServer(folder)
    try:
        with redis.Redis(unix_socket_path=str(started.socket)) as client:
            yield client
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run_seed(client: redis.Redis, seed: int) -> Outcome:
    """Run one seed."""
    began = time.perf_counter()
    try:
        world = run(client, draw(seed))
    except Exception as exc:
        name = exc.invariant if isinstance(exc, Violation) else type(exc).__name__
        words = "".join(
            traceback.format_exception_only(exc) if isinstance(exc, Violation) else traceback.format_exception(exc)
        )
        log = tuple(exc.log) if isinstance(exc, Violation) else ()
        return Outcome(seed, 0, 0, time.perf_counter() - began, False, name, words, log)
    calls, requests = world.broker.calls, world.journal.requests
    seconds = time.perf_counter() - began
    return Outcome(seed, calls, requests, seconds, world.broker.spent, log=tuple(world.journal.log))


def run_share(seeds: Iterable[int], stop_at_first: bool = False) -> list[Outcome]:
    """Run some seeds on a server of their own."""
    found = []
    with server() as client:
        for seed in seeds:
            found.append(run_seed(client, seed))
            if stop_at_first and found[-1].invariant:
                break
    return found


def run_all(seeds: range, processes: int, stop_at_first: bool = False) -> Iterator[Outcome]:
    """Run seeds in several processes, a few at a time each."""
    if processes == 1 or stop_at_first:
        yield from run_share(seeds, stop_at_first)
        return
    shares = [seeds[n : n + 10] for n in range(0, len(seeds), 10)]
    with ProcessPoolExecutor(processes) as pool:
        for outcomes in pool.map(run_share, shares):
            yield from outcomes
