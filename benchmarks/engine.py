"""What a backfill costs over a plain script that does the same without queue, limits or resume.

    python benchmarks/engine.py [--texts 50000] [--dimensions 256] [--batch 256] [--latency-ms 20] [--workers 2]
                                [--rounds 5] [--json]

Each round runs both, in changing order, against one server that answers after the latency. Times are each one's own,
from the first line read to the last byte written; the backfill's workers and broker run before it starts, as they do
in a deployment. Every row of the last round is checked against its text's right vector.

Where the time goes is told as processor seconds of each process (Linux). On two cores the server's share counts too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from engine_server import bank, right_vector

from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import await_end, broker
from penstock.workers.processes.launcher import workers

HERE = Path(__file__).resolve().parent
ENDPOINT = "bench"


@dataclass
class Bench:
    """What the rounds share: the corpus, the server's URL, and the processes whose time is counted."""

    folder: Path
    corpus: Path
    url: str
    options: argparse.Namespace
    processes: dict[str, list[int]]

    def script(self) -> float:
        """Run the plain script; return its seconds."""
        arguments = [str(self.corpus), self.url, str(self.folder / "script.parquet")]
        arguments += [str(self.options.dimensions), str(self.options.batch)]
        return float(_run([sys.executable, str(HERE / "engine_script.py"), *arguments]))

    def backfill(self, round_number: int) -> dict[str, Any]:
        """Run a backfill; return its report."""
        out = self.folder / f"out-{round_number}"
        arguments = ["backfill", str(self.corpus), "--endpoint", ENDPOINT, "--out", str(out), "--no-chunk", "--json"]
        report: dict[str, Any] = json.loads(_run([sys.executable, "-m", "penstock.cli.main", *arguments]))
        return report


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv[:4])} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


@contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    """Have server, broker and workers."""
    folder = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp" if Path("/tmp").is_dir() else None))
    os.environ.update(PENSTOCK_HOME=str(folder / "home"), PENSTOCK_LOG_LEVEL="WARNING")
    corpus = folder / "corpus.jsonl"
    with corpus.open("w") as file:
        for n in range(options.texts):
            row = {"id": f"doc-{n}", "text": f"Text {n} of a corpus of short ones: one line."}
            file.write(json.dumps(row) + "\n")
    argv = [sys.executable, str(HERE / "engine_server.py"), str(options.dimensions), str(options.latency_ms)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield from _with_workers(folder, corpus, server.stdout.readline().strip(), server.pid, options)
        finally:
            server.kill()
            await_end(folder / "home")
            shutil.rmtree(folder)


def _with_workers(folder: Path, corpus: Path, url: str, server: int, options: argparse.Namespace) -> Iterator[Bench]:
    settings = load_settings()
    with broker(settings) as urls, connect(urls.broker) as client:
        service_settings = {
            "url": url, "model_id": "bank", "api_key": "none", "dimensions": options.dimensions,
            "max_inputs_per_request": options.batch, "rate_limit": {"requests_per_minute": None},
        }  # fmt: skip
        body = {"service": "openai", "service_settings": service_settings}
        Registry(client, settings).put("text_embedding", ENDPOINT, body)
        os.environ["PENSTOCK_BROKER_URL"] = urls.broker  # the backfill uses these workers and starts none
        with workers(options.workers, settings) as group:
            pids = [process_.process.pid for process_ in group.processes_ if process_.process]
            processes = {"workers": pids, "broker": [client.info("server")["process_id"]], "server": [server]}
            yield Bench(folder, corpus, url, options, processes)


def processor_seconds(pids: list[int]) -> float:
    """Return the processor seconds that processes have used, 0 where the system does not tell."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(run: Bench) -> dict[str, Any]:
    """Run the rounds."""
    script: list[float] = []
    engine: list[float] = []
    spent: dict[str, list[float]] = {name: [] for name in ("backfill", *run.processes)}
    run.script()  # warm caches, and the server
    run.backfill(0)
    for number in range(1, run.options.rounds + 1):
        if number % 2:
            script.append(run.script())
        before = {name: processor_seconds(pids) for name, pids in run.processes.items()}
        own = os.times()
        report = run.backfill(number)
        now = os.times()
        spent["backfill"].append(now.children_user + now.children_system - own.children_user - own.children_system)
        for name, pids in run.processes.items():
            spent[name].append(processor_seconds(pids) - before[name])
        engine.append(report["seconds"])
        if not number % 2:
            script.append(run.script())
    check(run)
    ratio = statistics.median(plain / ours for plain, ours in zip(script, engine, strict=True))
    return {
        "texts": run.options.texts,
        "rounds": run.options.rounds,
        "script_texts_per_second": round(run.options.texts / statistics.median(script)),
        "backfill_texts_per_second": round(run.options.texts / statistics.median(engine)),
        "ratio": round(ratio, 2),
        "processor_seconds": {name: round(statistics.median(each), 2) for name, each in spent.items()},
    }


def check(run: Bench) -> None:
    """Check that the last backfill has every row once, with its own text's vector."""
    table = ds.dataset(sorted((run.folder / f"out-{run.options.rounds}").glob("part-*.parquet"))).to_table()
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    right = bank(run.options.dimensions)
    assert len(set(table["id"].to_pylist())) == len(table) == run.options.texts
    for text, vector in zip(table["text"].to_pylist(), vectors, strict=True):
        assert np.array_equal(vector, right_vector(right, text)), text


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("texts", 50_000), ("dimensions", 256), ("batch", 256), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with bench(options) as run:
        found = measure(run)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"plain script   {found['script_texts_per_second']:8,} texts/s")
    print(f"backfill       {found['backfill_texts_per_second']:8,} texts/s")
    print(f"ratio          {found['ratio']:8.2f}   (median of {options.rounds} paired rounds)")
    print("processor seconds of one backfill, start of its process included:")
    for name, seconds in found["processor_seconds"].items():
        print(f"  {name:12} {seconds:6.2f}")


if __name__ == "__main__":
    main()
