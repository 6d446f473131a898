"""Worker processes of a test."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.processes import Child

TESTS = Path(__file__).resolve().parent.parent
_numbers = itertools.count(1)


class Worker(Child):
    """``celery -A APP worker`` as a process; ``name`` is its node name, its log is at level INFO."""

    def __init__(
        self,
        folder: Path,
        app: str = "penstock.workers.app",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ):
        number = next(_numbers)
        self.name = f"w{number}-{os.getpid()}@test"
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-n", self.name]
        argv += ["--without-mingle", "--without-gossip", *args]  # looking for neighbours takes a second
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
        super().__init__(argv, folder / f"worker-{number}.log", env={"PYTHONPATH": path, **(env or {})}, cwd=folder)

    def wait_ready(self, timeout: float = 40.0) -> None:
        """Wait until it takes tasks."""
        self.wait_for(" ready.", timeout)
