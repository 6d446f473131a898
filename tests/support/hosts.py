"""Runs an application with a Celery app of its own beside workers of ours, in this Python or in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.processes import Child
from support.task_bench import Stage, TaskBench

TESTS = Path(__file__).resolve().parents[1]
OURS = "penstock+"  # our result back end, in an app's configuration
EMBEDDED = "EmbedResult(2 x 8 float32, 0 failed)"
#: What an app with Celery's own result back end finds.
STOCK = {
    "plain_send": [["effort", "failures", "model", "usage", "vectors"], [2, 8], True],
    "plain_error": "EndpointNotFound",
    "delay": EMBEDDED,
    "end_in_own": [2, 8],
    "back_to_object": True,
    "own_first": [3, 8],
    "three_of_ours": ["EmbedResult(1 x 8 float32, 0 failed)", [1, 8]],
    "groups": [["EmbedResult(1 x 8 float32, 0 failed)"] * 2, [[1, 8], [1, 8]]],
    "chords": [[[1, 8]] * 3, "EmbedResult(3 x 8 float32, 0 failed)"],
}
#: What one with ours finds, besides.
WITH_OURS = {"by_name": [EMBEDDED, EMBEDDED, "SUCCESS"], "by_id": [EMBEDDED, True, "own"]}


class Host:
    """An application's worker, and code of its own that calls.

    Args:
        python: whose Celery it has.
        scheme: before its result back end's URL; empty for Celery's own.
    """

    def __init__(self, stage: Stage, python: str = sys.executable, scheme: str = "") -> None:
        self._python = python
        self._env = {**stage.env, "HOST_SCHEME": scheme, "PYTHONPATH": str(TESTS)}
        argv = [python, "-m", "celery", "-A", "support.host_app", "worker", "-P", "threads", "-c", "4", "-Q", "mine"]
        argv += ["--without-mingle", "--without-gossip", "-l", "INFO"]
        log = stage.folder / f"host-{os.urandom(4).hex()}.log"
        self.worker = Child(argv, log, env=self._env, cwd=stage.folder)
        self.worker.wait_for(" ready.", 60)

    def run(self, *scenes: str) -> dict[str, Any]:
        """Run scenes of ``support.host_run``, and return what they found."""
        argv = [self._python, "-m", "support.host_run", *scenes]
        env = {**os.environ, **self._env}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=240, env=env, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}\n{self.worker.log[-4000:]}"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def stop(self) -> None:
        """End its worker."""
        self.worker.kill_all()


def put_endpoints(bench: TaskBench, stage: Stage) -> None:
    """Put the endpoints that the scenes use."""
    bench.openai("text_embedding", "docs", stage.stand_in.url, model="m")
    bench.openai("completion", "chat", stage.stand_in.url, model="chat")
