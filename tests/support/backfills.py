"""Backfills as a test runs them: a corpus, an endpoint on the stand-in, the command, and a look at what it wrote."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.names import BULK, INTERACTIVE, queue_name
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.stand_in.vectors import vector
from support.harness import harness
from support.processes import Child
from support.stand_in import StandIn
from support.valkey import ValkeyServer

PENSTOCK = (sys.executable, "-m", "penstock.cli.main", "--traceback")
ENDPOINT = "docs"
DIMENSIONS = 32
REPORT_KEYS = [
    "documents", "chunks", "embedded", "failed", "duplicates_reused", "requests", "tokens", "retries", "rate_limited",
    "possibly_billed_twice", "seconds", "quota_use",
]  # fmt: skip
LANE_QUEUES = ("-Q", f"{queue_name(ENDPOINT, BULK)},{queue_name(ENDPOINT, INTERACTIVE)}")

#: Code for ``python -c``: output files of 100 rows.
SMALL_SHARDS = """
from penstock.tasks.backfill.targets import parquet
parquet.SHARD_ROWS = 100; parquet.GROUP_BYTES = 4000
"""
#: And a command that dies at a step: ``MODULE:NAME NTH before|after COMMAND...``.
DYING = """
import os, sys
from importlib import import_module

module, _, path = sys.argv[1].partition(":")
nth, when = int(sys.argv[2]), sys.argv[3]
owner = import_module("penstock.tasks.backfill." + module)
*owners, name = path.split(".")
for each in owners:
    owner = getattr(owner, each)
original, calls = getattr(owner, name), 0

def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls == nth and when == "before":
        os._exit(9)
    result = original(*args, **kwargs)
    if calls == nth:
        os._exit(9)
    return result

setattr(owner, name, dying)
from penstock.cli.main import main
main(sys.argv[4:])
"""


@dataclass
class Deployment:
    """A broker, a stand-in and a worker that several tests share."""

    folder: Path
    server: ValkeyServer
    stand_in: StandIn

    def rig(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Rig:
        """Return a rig on it, with the endpoint stored and the environment set for one test."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        rig = Rig(folder, self.stand_in)
        rig.put(self.server.url, **settings)
        return rig

    @property
    def environment(self) -> dict[str, Any]:
        """What its processes are told."""
        return {
            "PENSTOCK_BROKER_URL": self.server.url,
            "PENSTOCK_HOME": str(self.folder / "home"),
            "PENSTOCK_SECRET_KEY": "k" * 32,
        }

    def results_left(self) -> list[bytes]:
        """Keys of results that are still stored."""
        with self.server.client() as client:
            found: list[bytes] = client.keys("*celery-task-meta*")
            return found


@contextmanager
def deployed(**stand_in: Any) -> Iterator[Deployment]:
    """Have a deployment; keywords are the stand-in's options."""
    with harness() as made:
        server = made.start_server()
        deployment = Deployment(made.folder, server, made.start_stand_in(dimensions=DIMENSIONS, **stand_in))
        made.start_workers(args=LANE_QUEUES, **deployment.environment)
        yield deployment


class Rig:
    """One deployment of a test: the broker of the environment, a stand-in, a folder.

    Args:
        folder: for corpora, outputs and logs.
        stand_in: the service; None for tests in which none is asked.
    """

    def __init__(self, folder: Path, stand_in: StandIn | None) -> None:
        self.folder, self.stand_in = folder, stand_in
        self.out = folder / "out"
        self._numbers = itertools.count()
        self.started: list[Child] = []

    def put(self, broker_url: str, *, url: str = "", task_type: str = "text_embedding", **settings: Any) -> None:
        """Store the endpoint ``docs``; keywords are service settings, ``chunking_settings`` is the body's own."""
        chunking = settings.pop("chunking_settings", None)
        base = url or (self.stand_in.url if self.stand_in else "http://127.0.0.1:9")
        body: dict[str, Any] = {
            "service": "openai",
            "service_settings": {
                "url": f"{base}/v1/embeddings",
                "api_key": "sk-backfill-test-key",
                "model_id": "model",
                "dimensions": DIMENSIONS,
                "rate_limit": {"requests_per_minute": None},
                **settings,
            },
        }
        if task_type != "text_embedding":
            del body["service_settings"]["dimensions"]
        if chunking is not None:
            body["chunking_settings"] = chunking
        with connect(broker_url) as client:
            Registry(client, load_settings()).put(task_type, ENDPOINT, body)

    def corpus(self, rows: Iterable[Mapping[str, Any] | bytes], name: str = "corpus.jsonl") -> Path:
        """Write a JSONL corpus; bytes are lines as they are."""
        path = self.folder / name
        path.write_bytes(
            b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
        )
        return path

    def start(
        self,
        source: object,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        argv: Sequence[str] = PENSTOCK,
    ) -> Child:
        """Start ``penstock backfill SOURCE``; without ``--out`` it writes to ``self.out``.

        Args:
            prefix: before the command; ``argv`` is what runs it.
        """
        more = [] if "--out" in arguments else ["--out", str(self.out)]
        command = ["backfill", str(source), "--endpoint", ENDPOINT, *more, *arguments]
        return self._start([*prefix, *argv, *command], env)

    def _start(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        child = Child(argv, self.folder / f"backfill-{next(self._numbers)}.log", env=env, cwd=self.folder)
        self.started.append(child)
        return child

    def run(self, source: object, *arguments: str, timeout: float = 60, expect: int = 0, **more: Any) -> Child:
        """Run ``penstock backfill SOURCE`` to its end and check its exit code, and that there was no traceback."""
        return self.ended(self.start(source, *arguments, **more), expect, timeout)

    def start_retry(self, *arguments: str, job: str = "out", argv: Sequence[str] = PENSTOCK) -> Child:
        """Start ``penstock jobs retry-failed JOB``."""
        return self._start([*argv, "jobs", "retry-failed", job, *arguments])

    def retry(self, *arguments: str, expect: int = 0, job: str = "out") -> Child:
        """Run ``penstock jobs retry-failed JOB`` to its end and check its exit code."""
        return self.ended(self.start_retry(*arguments, job=job), expect)

    def ended(self, child: Child, expect: int = 0, timeout: float = 60) -> Child:
        """Wait for the end of a command; check its exit code, and that there was no traceback."""
        code = child.wait(timeout)
        assert code == expect, f"exit code {code}:\n{child.log[-3000:]}"
        assert "Traceback" not in child.log
        return child

    def rows(self, out: Path | None = None) -> list[dict[str, Any]]:
        """All rows of the output, vectors as bytes."""
        rows: list[dict[str, Any]] = []
        for path in sorted((out or self.out).glob("part-*.parquet")):
            table = pq.read_table(path)
            vectors = table.column("embedding").combine_chunks()
            flat = vectors.flatten().to_numpy().reshape(len(vectors), -1)
            others = table.drop_columns(["embedding"]).to_pylist()
            rows += [{**row, "embedding": each.tobytes()} for row, each in zip(others, flat, strict=True)]
        return rows

    def check(self, texts: Mapping[tuple[str, int], str], out: Path | None = None) -> None:
        """Check that the output has exactly these rows, each once, with its own text's vector, bit for bit."""
        rows = self.rows(out)
        found = sorted((row["id"], row["chunk"]) for row in rows)
        assert found == sorted(texts), _difference(found, sorted(texts))
        for row in rows:
            text = texts[row["id"], row["chunk"]]
            assert row.get("text", text) == text
            assert row["embedding"] == vector(text, DIMENSIONS).tobytes(), (
                f"the vector of {row['id']} is another text's"
            )

    def report(self, out: Path | None = None) -> dict[str, Any]:
        """``report.json``, its keys checked."""
        report: dict[str, Any] = json.loads(((out or self.out) / "report.json").read_bytes())
        assert list(report) == REPORT_KEYS
        return report

    def failed(self, out: Path | None = None) -> list[dict[str, Any]]:
        """``failed.jsonl``, its keys checked."""
        letters = [json.loads(line) for line in ((out or self.out) / "failed.jsonl").read_bytes().splitlines()]
        assert all(list(letter) == ["id", "chunk", "code", "message", "attempts"] for letter in letters)
        return letters

    def stop(self) -> None:
        """End what was started."""
        for child in self.started:
            child.kill_all()


def numbered(count: int, prefix: str = "document number") -> list[dict[str, str]]:
    """Rows with ids ``d0``, ``d1`` ... and distinct texts."""
    return [{"id": f"d{n}", "text": f"{prefix} {n} of {count}"} for n in range(count)]


def whole(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], str]:
    """What ``Rig.check`` wants of rows that are not chunked."""
    return {(row["id"], 0): row["text"] for row in rows}


def _difference(found: list[Any], wanted: list[Any]) -> str:
    twice = [key for key, run in itertools.groupby(found) if len(list(run)) > 1]
    lost = set(wanted) - set(found)
    return f"{len(lost)} rows lost ({sorted(lost)[:5]}), {len(twice)} twice ({twice[:5]}), of {len(wanted)}"
