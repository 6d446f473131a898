"""``penstock demo`` as a new user runs it: installed, no configuration, no server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.cli.demo.environment import REQUESTS, TOKENS
from support.processes import Child, alive
from support.waiting import wait_until

PENSTOCK = str(Path(sys.executable).with_name("penstock"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the demo: its JSON and its folder."""
    out = tmp_path_factory.mktemp("demo") / "vectors"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    # Somebody else's broker is none of the demo's business.
    env |= {"PENSTOCK_BROKER_URL": "redis://127.0.0.1:1/0", "TMPDIR": str(tmp_path_factory.mktemp("t"))}
    argv = [PENSTOCK, "demo", "--json", "--out", str(out), "--ask", "read a zip archive"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, env=env)
    assert done.returncode == 0, done.stderr
    assert os.listdir(env["TMPDIR"]) == []  # noqa: PTH208 - names are all that matters
    return {**json.loads(done.stdout), "folder": out}


def test_every_document_becomes_vectors_but_the_one_refused(demo: dict[str, Any]) -> None:
    report = demo["report"]
    assert report["documents"] > 2_000
    assert report["chunks"] >= report["documents"]
    assert (report["embedded"], report["failed"]) == (report["chunks"] - 1, 1)
    letters = [json.loads(line) for line in (demo["folder"] / "failed.jsonl").read_text().splitlines()]
    assert [(each["id"], each["code"]) for each in letters] == [("demo.refused", "content_filter")]


def test_the_report_agrees_with_what_the_endpoint_counted(demo: dict[str, Any]) -> None:
    report, endpoint = demo["report"], demo["endpoint"]
    assert report["requests"] + 1 == endpoint["requests"]  # one for the question
    assert report["possibly_billed_twice"] >= endpoint["billed_again"]
    assert endpoint["faults"].keys() >= {"500", "content-filter"}


def test_the_quota_is_used_and_not_overdrawn(demo: dict[str, Any]) -> None:
    report = demo["report"]
    assert 0 < report["quota_use"] <= 1
    assert report["rate_limited"] <= 0.01 * report["requests"]


def test_the_nearest_passage_is_about_archives(demo: dict[str, Any]) -> None:
    (answer,) = demo["answers"]
    assert answer["question"] == "read a zip archive"
    assert {"zipfile", "tarfile", "shutil"} & {hit["id"].split(".")[0] for hit in answer["hits"]}


def test_the_files_are_what_it_says(demo: dict[str, Any]) -> None:
    assert set(demo["files"]) >= {"failed.jsonl", "report.json"}
    rows = sum(pq.read_metadata(path).num_rows for path in demo["folder"].glob("part-*.parquet"))
    assert rows == demo["report"]["embedded"]


def test_its_quota_allows_it_within_a_minute(demo: dict[str, Any]) -> None:
    assert demo["endpoint"]["requests"] <= REQUESTS
    assert demo["endpoint"]["tokens"] <= TOKENS


def test_an_interrupted_demo_leaves_nothing_behind(folder: Path) -> None:
    child = Child([PENSTOCK, "demo"], folder / "log", {"TMPDIR": str(folder)})
    child.wait_for("backfill of corpus.jsonl", timeout=60)
    (place,) = folder.glob("penstock-demo-*")
    child.send(signal.SIGINT)
    assert child.wait(30) == 130
    assert "Traceback" not in child.log
    assert not (place / "home").exists()
    wait_until(lambda: not _running_from(place), "all processes of the demo have ended")


def _running_from(place: Path) -> list[int]:
    """Processes whose environment or command line names the demo's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(place) in text and alive(int(entry.name)):
                found.append(int(entry.name))
    return found
