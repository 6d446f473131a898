"""What the benchmarks of lanes run on: a broker, worker processes, stand-ins with limits, endpoints, work, counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from httpx_aiohttp import AiohttpTransport

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from penstock.config.settings import Settings, load_settings
from penstock.workers.lanes.limiter import PACE
from penstock.workers.processes.launcher import ProcessGroup, workers
from support.app import own_app, publish, put_endpoint
from support.stand_in import StandIn
from support.valkey import ValkeyServer

DIMENSIONS = 8


class Bench:
    """One broker and what hangs on it. Made by ``bench``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ValkeyServer(folder)
        os.environ.update(PENSTOCK_HOME=str(folder / "home"), PENSTOCK_BROKER_URL=self.server.socket_url)
        (folder / "home").mkdir(mode=0o700)
        self.settings: Settings = load_settings()
        self.app = own_app("bench")
        self._stand_ins: list[StandIn] = []

    def stand_in(self, **options: Any) -> StandIn:
        """Start a stand-in with these options."""
        log = self.folder / f"stand-in-{len(self._stand_ins)}.log"
        self._stand_ins.append(StandIn(log, **{"dimensions": DIMENSIONS, "headers": "none", **options}))
        return self._stand_ins[-1]

    def put(self, name: str, server: StandIn, rpm: float | None, tpm: float | None = None) -> None:
        """Put an endpoint with a quota of its own and these limits, None for no limit."""
        limit: dict[str, float | None] = {"requests_per_minute": rpm}
        if tpm is not None:
            limit["tokens_per_minute"] = tpm
        settings = {"model_id": name, "url": f"{server.url}/v1", "rate_limit": limit}
        put_endpoint(self.server.socket_url, "text_embedding", name, "openai", settings)

    def publish(self, name: str, calls: Sequence[list[str]]) -> list[str]:
        """Publish bulk ``embed`` calls. Returns the tasks' ids."""
        return publish(self.app, name, calls)

    @contextlib.contextmanager
    def workers(self, count: int, concurrency: int = 50) -> Iterator[ProcessGroup]:
        """Have worker processes, ended at once at the end."""
        with workers(count, self.settings, concurrency=concurrency) as group:
            try:
                yield group
            finally:
                group.stop(cold=True, grace_s=5)

    def close(self) -> None:
        """End all that was started."""
        self.app.close()
        for each in self._stand_ins:
            each.stop()
        self.server.stop()


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Have a bench in a folder of its own, whatever the environment says."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp" if Path("/tmp").is_dir() else None))
    made = Bench(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def span(stats: dict[str, Any], since: float, until: float) -> dict[str, float]:
    """Sum the stand-in's timeline over the whole seconds between two UNIX times.

    Returns:
        ``served``, ``limited`` (429s), ``tokens``, ``seconds``.
    """
    first, last = int(since) + 1, int(until)
    rows = [row for row in stats["timeline"] if first <= row[0] < last]
    return {
        "served": float(sum(row[1] for row in rows)),
        "limited": float(sum(row[2] for row in rows)),
        "tokens": float(sum(row[4] for row in rows)),
        "seconds": float(last - first),
    }


async def plain_loop(url: str, rpm: float, seconds: float) -> None:
    """The yardstick: an asyncio loop that sends single texts evenly, at the lanes' own pace, and does nothing else."""
    async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=30) as client:
        begin, step, sent = time.monotonic(), 60 / (rpm * PACE), set()
        for n in range(int(seconds / step)):
            await asyncio.sleep(max(0.0, begin + n * step - time.monotonic()))
            body = {"model": "plain", "input": [f"plain text {n}"]}
            request = asyncio.ensure_future(client.post(f"{url}/v1/embeddings", json=body))
            sent.add(request)
            request.add_done_callback(sent.discard)
        await asyncio.gather(*sent, return_exceptions=True)
