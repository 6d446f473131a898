"""The way of a text through the modules is the one that the design document draws, and it is short."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.app import put_endpoint
from support.processes import Child
from support.stand_in import StandIn
from support.text_way import FILE, MARKER, read_way
from support.waiting import wait_until
from support.worker import Worker

DESIGN = Path(__file__).resolve().parents[2] / "docs" / "design.md"
TEXT = "zebracrossing"


def documented(title: str) -> list[str]:
    """Return the modules that the document names under a title, in order."""
    section = DESIGN.read_text().partition(f"**{title}**")[2].partition("\n\n")[2]
    return re.findall(r"^\d+\. `([a-z_.]+)`", section.partition("\n\n")[0], re.M)


@pytest.fixture
def traced(
    folder: Path,
    home: Path,
    broker_url: str,
    stand_in: Callable[..., StandIn],
    worker: Callable[..., list[Worker]],
) -> Callable[[], Path]:
    """An endpoint, and a worker whose trace is at the path that is returned when it takes tasks."""
    settings = {"url": f"{stand_in().url}/v1", "model_id": "m", "max_inputs_per_request": 8}
    put_endpoint(broker_url, "text_embedding", "docs", "openai", settings)
    trace = folder / "worker.trace"
    trace.touch()
    worker(app="support.traced_app", **{MARKER: TEXT, FILE: str(trace)})
    return lambda: trace


def run_traced(folder: Path, code: str, *arguments: str) -> Path:
    """Run code in a process of its own. Returns its trace."""
    trace = folder / "other.trace"
    trace.touch()
    argv = [sys.executable, "-c", f"from support.text_way import start_from_environment as start\n{code}", *arguments]
    tests = str(Path(__file__).resolve().parents[1])
    run = Child(argv, folder / "run.log", {MARKER: TEXT, FILE: str(trace), "PYTHONPATH": tests}, cwd=folder)
    wait_until(lambda: not run.running, "it ends", timeout=60)
    assert run.exit_code == 0, run.log
    return trace


def test_a_texts_way_from_delay_to_the_socket(traced: Callable[[], Path], folder: Path) -> None:
    code = f"from penstock.tasks import embed; start(); embed.delay(['a {TEXT}'], 'docs').get(timeout=20)"
    found = read_way(run_traced(folder, code), traced())
    assert found == documented("One call")
    assert len(found) <= 15


def test_a_texts_way_through_a_backfill(traced: Callable[[], Path], folder: Path) -> None:
    rows = [{"id": str(n), "text": f"row {n} {TEXT if n == 300 else ''}"} for n in range(400)]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, rows)))
    code = "start(); from penstock.cli.main import main; main()"
    trace = run_traced(folder, code, "backfill", str(corpus), "-e", "docs", "-o", str(folder / "out"))
    found = read_way(trace, traced())
    assert found == documented("A backfill")
    assert len(found) <= 25
