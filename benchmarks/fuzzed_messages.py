"""What messages that are nearly right cost the work beside them, and Redis.

``python benchmarks/fuzzed_messages.py [--messages 10000] [--rounds 5] [--json]``

Rounds in turns: single texts through two workers, whose endpoint takes 30 ms and has no limit, alone; then as many with
fuzzed messages put on all queues at a steady pace all the while. Told are the ratio of texts a second, the longest that
Redis was held up by one command (its slow log), how many workers died, and how many of the messages were answered or
kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from penstock.workers.broker.dead_letters import drop
from penstock.workers.broker.message import read_id
from support.app import own_app, publish, put_endpoint
from support.fuzzed import QUEUES, messages
from support.plant import PREFIX, Plant
from support.stand_in import StandIn
from support.valkey import ValkeyServer
from support.worker import Worker

TEXTS, LATENCY_MS, WORKERS, DEAD_AT_ONCE = 1500, 30, 2, 500


@dataclass
class Found:
    """What a run found.

    Args:
        ratio: texts a second beside fuzzed messages, to those alone; median of the rounds.
        longest_ms: of any command of Redis.
        deaths: of workers.
        sent, answered: fuzzed messages, and those of them whose task has an outcome or that are kept.
    """

    ratio: float
    longest_ms: float
    deaths: int
    sent: int
    answered: int


class Fuzz:
    """Puts fuzzed messages on the queues from a thread, and accounts for them."""

    def __init__(self, plant: Plant, source: Iterator[tuple[str, bytes]]) -> None:
        self._plant, self._source = plant, source
        self.sent: list[bytes] = []
        self.kept: set[bytes] = set()

    @contextmanager
    def during(self, count: int, seconds: float) -> Iterator[None]:
        """Send ``count`` messages in about ``seconds``."""
        thread = threading.Thread(target=self._send, args=(count, seconds))
        thread.start()
        yield
        thread.join()

    def _send(self, count: int, seconds: float) -> None:
        began = time.monotonic()
        for n in range(count):
            queue, raw = next(self._source)
            self.sent.append(raw)
            self._plant.push(raw, queue)
            if n % DEAD_AT_ONCE == DEAD_AT_ONCE - 1:
                self.collect()
            time.sleep(max(0.0, began + seconds * n / count - time.monotonic()))

    def collect(self) -> None:
        """Take what was kept off the list, which is bounded."""
        for dead in self._plant.dead(*QUEUES):
            self.kept.add(dead.raw)
            drop(self._plant.client, PREFIX, dead)

    def answered(self) -> int:
        """How many are kept, or have an outcome."""
        self.collect()
        return sum(raw in self.kept or self._has_outcome(raw) for raw in self.sent)

    def _has_outcome(self, raw: bytes) -> bool:
        task_id = read_id(raw)
        return task_id is not None and self._plant.answered(task_id)


def texts_a_second(app: Any, server: StandIn, name: str) -> float:
    before = server.stats()["served"]
    began = time.monotonic()
    publish(app, "calm", [[f"{name} {n}"] for n in range(TEXTS)], "interactive")
    while server.stats()["served"] - before < TEXTS:
        time.sleep(0.02)
    return TEXTS / (time.monotonic() - began)


def run(count: int, rounds: int, folder: Path, stack: ExitStack) -> Found:
    valkey = ValkeyServer(folder)
    stack.callback(valkey.stop)
    server, fuzz_server = (StandIn(folder / f"{name}.log", latency_ms=LATENCY_MS) for name in ("calm", "docs"))
    stack.callback(server.stop)
    stack.callback(fuzz_server.stop)
    os.environ |= {"PENSTOCK_BROKER_URL": valkey.url, "PENSTOCK_HOME": str(folder)}
    app = own_app("fuzzed-messages")
    for inference_id, at in (("calm", server), ("docs", fuzz_server)):
        settings = {"url": f"{at.url}/v1", "model_id": inference_id, "rate_limit": {"requests_per_minute": None}}
        put_endpoint(valkey.url, "text_embedding", inference_id, "openai", settings)
    workers = [Worker(folder, app="support.feeder_app") for _ in range(WORKERS)]
    for worker in workers:
        stack.callback(worker.kill)
        worker.wait_ready()
    client = stack.enter_context(valkey.client())
    client.config_set("slowlog-log-slower-than", 5000)
    fuzz = Fuzz(Plant(client), messages(count, seed=int(time.time())))
    texts_a_second(app, server, "warm-up")
    ratios = []
    for n in range(rounds):
        alone = texts_a_second(app, server, f"alone {n}")
        with fuzz.during(count // rounds, TEXTS / alone):
            beside = texts_a_second(app, server, f"beside {n}")
        ratios.append(beside / alone)
        print(f"round {n + 1}: {alone:.0f} texts/s alone, {beside:.0f} beside fuzzed messages", file=sys.stderr)
    end = time.monotonic() + 60
    while (answered := fuzz.answered()) < len(fuzz.sent) and time.monotonic() < end:
        time.sleep(1)
    slow: Any = client.slowlog_get(128)
    longest_ms = max((entry["duration"] for entry in slow), default=5000) / 1000
    deaths = sum(not worker.running for worker in workers)
    return Found(statistics.median(ratios), longest_ms, deaths, len(fuzz.sent), answered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pk-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        found = run(arguments.messages, arguments.rounds, folder, stack)
    if arguments.json:
        print(json.dumps(asdict(found)))
        return
    print(f"{found.sent:,} fuzzed messages: {found.answered:,} answered or kept, {found.deaths} workers died")
    print(f"the work beside them ran at {found.ratio:.1%}; Redis was held up for {found.longest_ms:.0f} ms at most")


if __name__ == "__main__":
    main()
