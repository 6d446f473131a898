"""One side of ``benchmarks/paired.py``: a worker, or the driver that calls tasks and times them.

    python benchmarks/paired_side.py worker TREE [CELERY_ARGUMENTS...]
    python benchmarks/paired_side.py driver TREE

The same file runs for both trees, so it uses only what every version has: ``penstock.tasks.embed``, the Celery app
``penstock.workers.app``, and the names of lanes' queues. Which tree is imported is the parent's choice (``PYTHONPATH``)
and is checked here: a module of ``penstock`` from elsewhere ends the process.

It writes JSON lines on standard output, the first when it is ready, and ends with its standard input. The driver
answers each line, ``{"run": "engine", ...}`` with the function's arguments, with a line of what it found.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

RESULT_S = 60.0


def modules(tree: Path) -> dict[str, str]:
    """Check that every module of ours is the tree's. Returns where the packages are.

    Raises:
        SystemExit: one is not.
    """
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    ours = {name: Path(file) for name, file in files.items() if file and name.startswith("penstock.")}
    strange = [f"{name}: {file}" for name, file in ours.items() if not file.is_relative_to(tree)]
    if strange or "penstock.workers" not in ours:
        raise SystemExit(f"not imported from {tree}: {strange[:3] or 'penstock.workers'}")
    return {"workers": str(ours["penstock.workers"]), "count": str(len(ours))}


# A worker ----------------------------------------------------------------------------------------------------------


def worker(tree: Path, say: Callable[[Any], None], arguments: Sequence[str]) -> int:
    """Run a worker of the tree's app until standard input ends."""
    from celery import signals

    from penstock.workers.app import app

    def announce(**_: Any) -> None:
        try:
            say(modules(tree))
        except SystemExit as exc:  # Celery would only log it
            print(exc, file=sys.stderr, flush=True)
            os._exit(1)

    signals.worker_ready.connect(announce, weak=False)
    threading.Thread(target=_end_with_input, daemon=True).start()
    return int(app.worker_main(["-q", "worker", "-l", "WARNING", "--without-mingle", "--without-gossip", *arguments]))


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGQUIT)


# The driver --------------------------------------------------------------------------------------------------------


def driver(tree: Path, say: Callable[[Any], None]) -> int:
    """Answer lines until standard input ends."""
    from penstock.tasks import embed

    runs: dict[str, Callable[..., dict[str, Any]]] = {
        "engine": engine, "quota": quota, "idle": idle, "coalescing": coalescing,
    }  # fmt: skip
    embed.app.finalize()
    say(modules(tree))
    for line in sys.stdin:
        asked = json.loads(line)
        found = runs[asked.pop("run")](embed, **asked)
        say({**found, "modules": modules(tree)})
    return 0


def _publish(embed: Any, lane: str, calls: int) -> list[Any]:
    """Publish bulk calls of one text each."""
    return [embed.apply_async(([f"text {n}"], lane), queue=f"penstock.{lane}.bulk") for n in range(calls)]


def _collect(results: Sequence[Any]) -> None:
    for result in results:
        found = result.get(timeout=RESULT_S)
        assert len(found.vectors) == 1, found
        assert not found.failures, found.failures


def engine(embed: Any, lane: str, calls: int, workers: Sequence[int]) -> dict[str, Any]:
    """Time the draining of a full queue."""
    return {"seconds": _drain(lambda: _publish(embed, lane, calls), workers)}


def _drain(publish: Callable[[], list[Any]], workers: Sequence[int]) -> float:
    """Publish while the workers are stopped. Returns the seconds from their going on to the last result."""
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        results = publish()
    finally:
        begin = time.perf_counter()
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    _collect(results)
    return time.perf_counter() - begin


def quota(embed: Any, lane: str, calls: int) -> dict[str, Any]:
    """Have a limited lane work; the server counts."""
    begin = time.perf_counter()
    _collect(_publish(embed, lane, calls))
    return {"seconds": time.perf_counter() - begin}


def idle(embed: Any, lane: str, calls: int, url: str) -> dict[str, Any]:
    """Time lone calls, publish to result, each beside a plain request to the same server. Seconds."""
    ours, plain = [], []
    with httpx.Client(timeout=30) as client:
        for n in range(calls):
            begin = time.perf_counter()
            embed.delay([f"text {n}"], lane).get(timeout=RESULT_S)
            middle = time.perf_counter()
            body = {"model": lane, "input": [f"plain {n}"], "encoding_format": "base64"}
            client.post(url, json=body).raise_for_status()
            ours.append(middle - begin)
            plain.append(time.perf_counter() - middle)
    return {"ours": ours, "plain": plain}


def coalescing(embed: Any, lane: str, calls: int, workers: Sequence[int]) -> dict[str, Any]:
    """Time small interactive calls that are all there at once."""
    return {"seconds": _drain(lambda: [embed.delay([f"text {n}"], lane) for n in range(calls)], workers)}


def main() -> int:
    """Run what the arguments say."""
    kind, tree, *arguments = sys.argv[1:]
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is for the log

    def say(value: Any) -> None:
        lines.write(json.dumps(value) + "\n")
        lines.flush()

    return worker(Path(tree), say, arguments) if kind == "worker" else driver(Path(tree), say)


if __name__ == "__main__":
    sys.exit(main())
