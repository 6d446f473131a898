"""How much of a quota workers use that are far from their broker.

``python benchmarks/far_broker.py [--ms 0,20,50,100,200,300] [--seconds 20] [--json]``

Two worker processes reach a real Valkey through a proxy that holds every packet back for half of the round trip, each
way; the stand-in endpoint, which refuses above 600 requests a minute, is near. What is measured is the share of the
quota that was used in the steady part of the run, and the refusals in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.app import own_app, publish, put_endpoint
from support.stand_in import StandIn
from support.valkey import ValkeyServer
from support.worker import Worker

RPM, WARM_UP_S, WORKERS = 600, 8.0, 2


class FarProxy:
    """A TCP proxy on loopback that delivers every packet ``delay_s`` later, in order."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._target, self._delay_s = port, delay_s
        self._loop = asyncio.new_event_loop()
        self.port = 0
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        started.wait()

    def _run(self, started: threading.Event) -> None:
        async def serve() -> None:
            server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await server.serve_forever()

        self._loop.run_until_complete(serve())

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near_reader, near_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass_on(reader, near_writer), self._pass_on(near_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(65536):
                loop.call_later(self._delay_s, writer.write, data)
        except OSError:
            pass
        loop.call_later(self._delay_s, writer.close)


@contextmanager
def folder_of_ours() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def measure(round_trip_ms: float, seconds: float) -> dict[str, Any]:
    """Return what two workers did at a distance."""
    with folder_of_ours() as folder:
        server = ValkeyServer(folder)
        stand_in = StandIn(folder / "stand-in.log", rpm=RPM, latency_ms=60)
        proxy = FarProxy(server.port, round_trip_ms / 2000)
        os.environ |= {"PENSTOCK_BROKER_URL": server.url, "PENSTOCK_HOME": str(folder)}
        app = own_app("far")
        limit = {"rate_limit": {"requests_per_minute": RPM}, "max_inputs_per_request": 1}
        put_endpoint(
            server.url, "text_embedding", "docs", "openai", {"url": f"{stand_in.url}/v1", "model_id": "m", **limit}
        )
        far = {"PENSTOCK_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        workers = [Worker(folder, env=far) for _ in range(WORKERS)]
        try:
            for worker in workers:
                worker.wait_ready(60)
            publish(app, "docs", [[f"text {n}"] for n in range(round(RPM / 60 * (WARM_UP_S + seconds) * 1.5))])
            time.sleep(WARM_UP_S)
            before = stand_in.stats()
            time.sleep(seconds)
            after = stand_in.stats()
        finally:
            for worker in workers:
                worker.kill_all()
            stand_in.stop()
            server.stop()
    served = after["served"] - before["served"]
    refused = after["statuses"].get("429", 0) - before["statuses"].get("429", 0)
    return {"round_trip_ms": round_trip_ms, "use": served / (RPM / 60 * seconds), "refused": refused}


def main() -> None:
    """Measure each distance and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ms", default="0,20,50,100,200,300", help="round trips, in ms")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    for ms in map(float, given.ms.split(",")):
        rows.append(measure(ms, given.seconds))
        if not given.json:
            print(f"{ms:5.0f} ms: {rows[-1]['use']:.1%} of the quota, {rows[-1]['refused']} refused", flush=True)
    if given.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
