"""What an application pays for importing the tasks, and for its first call.

``python benchmarks/imports.py [--rounds 15] [--json]``

Fresh processes, interleaved; each says for how long its own code ran (seconds, wall clock; medians). A real Valkey
takes the messages.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.valkey import ValkeyServer

APPLICATION = "from celery import Celery; mine = Celery('mine', broker=url, backend=url); mine.conf.broker_url"
SENT = f"{APPLICATION}; mine.send_task('theirs')"
SCENES = {
    "import celery": ("pass", "import celery"),
    "from penstock.tasks import embed": ("pass", "from penstock.tasks import embed"),
    "a Celery app, and its first call": ("pass", SENT),
    "embed.delay(...), beside an app": (APPLICATION, "from penstock.tasks import embed; embed.delay(['a'], 'docs')"),
    "embed.delay(...), after that app's first call": (
        SENT,
        "from penstock.tasks import embed; embed.delay(['a'], 'docs')",
    ),
}
CODE = """
import os, sys, time
url = os.environ["PENSTOCK_BROKER_URL"]
{before}
begun, modules = time.perf_counter(), len(sys.modules)
{timed}
print(time.perf_counter() - begun, len(sys.modules) - modules)
"""


def measure(before: str, timed: str, url: str) -> tuple[float, int]:
    """Return the seconds that ``timed`` takes in a fresh process, and the modules that it loads."""
    argv = [sys.executable, "-c", CODE.format(before=before, timed=timed)]
    env = {**os.environ, "PENSTOCK_BROKER_URL": url}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env, timeout=120)
    seconds, modules = done.stdout.split()
    return float(seconds), int(modules)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[tuple[float, int]]] = {scene: [] for scene in SCENES}
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(Path(folder))
        try:
            for _ in range(options.rounds):
                for scene, (before, timed) in SCENES.items():
                    found[scene].append(measure(before, timed, server.url))
        finally:
            server.stop()
    medians = {scene: statistics.median(seconds for seconds, _ in each) for scene, each in found.items()}
    rows = [
        {"scene": scene, "seconds": seconds, "ratio": seconds / medians["import celery"], "modules": found[scene][0][1]}
        for scene, seconds in medians.items()
    ]
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("{scene:48} {seconds:7.3f} s {ratio:6.2f} x {modules:5} modules".format(**row))


if __name__ == "__main__":
    main()
