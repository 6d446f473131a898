"""Is a worker's memory flat? Its resident set over many messages, and what it holds while its lane is paused.

    python benchmarks/memory.py                      200,000 messages through one worker
    python benchmarks/memory.py --messages 20000     a shorter look

Prints the worker's resident set at ten points. The yardstick is its own after the first tenth, when pools, clients and
caches are warm: a leak of 1 kB a message would show as 200 MB at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import redis

from penstock.config.names import BULK, holder_key, queue_key, queue_name
from support import app
from support.stand_in import StandIn
from support.valkey import ValkeyServer

WINDOW = 2000


def main() -> None:
    """Run the measurement and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--waiting", type=int, default=100_000, help="messages in a paused lane; 0 skips that part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pk-", dir="/tmp") as folder:
        server = ValkeyServer(Path(folder))
        stand_in = StandIn(Path(folder) / "stand-in.log", dimensions=8)
        try:
            measure(Path(folder), server, stand_in, options)
        finally:
            stand_in.stop()
            server.stop()


def measure(folder: Path, server: ValkeyServer, stand_in: StandIn, options: argparse.Namespace) -> None:
    """Start one worker and watch it."""
    os.environ.update(PENSTOCK_HOME=str(folder), PENSTOCK_BROKER_URL=server.url, PENSTOCK_RESULT_EXPIRES_S="60")
    put_endpoint(server, stand_in)
    argv = [sys.executable, "-m", "celery", "-A", "penstock.workers.app", "worker", "-l", "WARNING", "-c", "100"]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder)
    try:
        wait_ready(folder / "worker.log")
        if options.waiting:
            hold(server, worker.pid, options.waiting)
        run(server, worker.pid, options.messages)
    finally:
        worker.terminate()
        worker.wait(30)


def wait_ready(log: Path) -> None:
    """Wait until the worker has said whom it serves, and has loaded all that it needs."""
    while "[queues]" not in log.read_text(errors="replace"):
        time.sleep(0.1)
    time.sleep(3)


def put_endpoint(server: ValkeyServer, stand_in: StandIn) -> None:
    """Put an endpoint without a limit."""
    settings = {"model_id": "m", "url": f"{stand_in.url}/v1", "rate_limit": {"requests_per_minute": None}}
    app.put_endpoint(server.url, "text_embedding", "docs", "openai", settings)


def hold(server: ValkeyServer, pid: int, waiting: int) -> None:
    """Publish to a paused lane and see what the worker takes of it."""
    from penstock.config.endpoints.registry import Registry
    from penstock.config.settings import load_settings
    from penstock.workers.lanes.limiter import change_lane

    settings = load_settings()
    with server.client() as client:
        quota = Registry(client, settings).get("docs").quota
        change_lane(client, settings.key_prefix, quota, "paused", "a benchmark")
        before = resident_mb(pid)
        publish(waiting, "waiting")
        time.sleep(5)
        held = client.hlen(holder_key(settings.key_prefix))
        print(f"paused lane: {waiting:,} messages waiting, {held} held by the worker, "
              f"resident set {before:.0f} -> {resident_mb(pid):.0f} MB", flush=True)  # fmt: skip
        client.delete(queue_key(settings.key_prefix, queue_name("docs", BULK)))
        change_lane(client, settings.key_prefix, quota, "resume")


def run(server: ValkeyServer, pid: int, messages: int) -> None:
    """Send the messages, a window at a time, and print the resident set ten times."""
    print(f"{'messages':>10} {'resident MB':>12} {'messages/s':>11}")
    step, sent, started = max(1, messages // 10), 0, time.monotonic()
    with server.client() as client:
        for point in range(1, 11):
            while sent < point * step:
                sent += publish(min(WINDOW, point * step - sent), f"n{sent}")
                wait_for_room(client)
            print(f"{sent:>10,} {resident_mb(pid):>12.1f} {sent / (time.monotonic() - started):>11.0f}", flush=True)


def wait_for_room(client: redis.Redis) -> None:
    """Wait until the queue has run low."""
    queued: Any = WINDOW
    while queued > WINDOW // 4:
        time.sleep(0.05)
        queued = client.llen("penstock:penstock.docs.bulk")


def publish(count: int, name: str) -> int:
    """Publish calls of one text each, in bulk."""
    return len(app.publish(_app(), "docs", [[f"{name} {n}"] for n in range(count)]))


@cache
def _app() -> Any:
    return app.own_app("memory")  # on first use: the environment names its broker by then


def resident_mb(pid: int) -> float:
    """Return a process's resident set in MB."""
    import psutil

    return float(psutil.Process(pid).memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
