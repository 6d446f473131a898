"""What a lane costs its neighbours and its callers: the scenes of ``benchmarks/lanes.py``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx
from lane_bench import Bench, bench, span

from penstock.config.names import BULK, EMBED_TASK, lane_key, queue_key, queue_name

# Cooling -----------------------------------------------------------------------------------------------------------

ROUNDS, ROUND_S, HEALTHY_RPM = 3, 12.0, 3000.0


def cooling(made: Bench) -> None:
    """Compare a healthy lane's rate, in one worker, while its neighbour is idle and while that cools, in turns."""
    cold, warm = made.stand_in(), made.stand_in(latency_ms=20)
    made.put("cold", cold, 6000)
    made.put("warm", warm, HEALTHY_RPM)
    rates: dict[str, list[float]] = {"idle": [], "cooling": []}
    with made.workers(1):
        made.publish("warm", [[f"warm {n}"] for n in range(int(HEALTHY_RPM / 60 * ROUND_S * (2 * ROUNDS + 3)))])
        time.sleep(4)
        for _ in range(ROUNDS):
            rates["idle"].append(_rate(warm))
            cold.configure(cool_down_s=60)
            made.publish("cold", [[f"cold {n} {time.time()}"] for n in range(500)])
            rates["cooling"].append(_rate(warm))
            cold.configure(cool_down_s=0)
            _forget(made, "cold")
    pairs = [beside / alone for alone, beside in zip(rates["idle"], rates["cooling"], strict=True)]
    print("| the neighbour | healthy lane, requests/s (its limit: 50) |")
    print("|---|---:|")
    for name, seen in rates.items():
        print(f"| {name} | {statistics.median(seen):.1f} |")
    print(f"| ratio, median of {ROUNDS} pairs | {statistics.median(pairs):.3f} |", flush=True)


def _rate(server: Any) -> float:
    begin = time.time()
    time.sleep(ROUND_S)
    counted = span(server.stats(), begin, time.time())
    return counted["served"] / counted["seconds"]


def _forget(made: Bench, name: str) -> None:
    """Drop what waits for a lane, and its cool-down."""
    with made.server.client() as client:
        client.delete(queue_key(made.settings.key_prefix, queue_name(name, BULK)))
        for key in client.keys(lane_key(made.settings.key_prefix, "*")):
            if client.type(key) == b"hash":
                client.hset(key, "cooldown_until", 0)


# Sharing requests ---------------------------------------------------------------------------------------------------

CALLS, COALESCE_RPM = 2000, 600.0


def coalesce(made: Bench) -> None:
    """Time single-text ``embed.delay`` calls from the first call to the last result."""
    server = made.stand_in(rpm=COALESCE_RPM, latency_ms=50)
    made.put("docs", server, COALESCE_RPM)
    with made.workers(2):
        begin = time.monotonic()
        results = [made.app.send_task(EMBED_TASK, ([f"text {n}"], "docs")) for n in range(CALLS)]
        sent = time.monotonic() - begin
        for result in results:
            result.get(timeout=300)
        took = time.monotonic() - begin
    stats = server.stats()
    print(f"| {CALLS:,} calls of one text, {COALESCE_RPM:.0f} requests/min | |")
    print("|---|---:|")
    print(f"| first call to last result | {took:.1f} s |")
    print(f"| of which calling (one process, one call after the other) | {sent:.1f} s |")
    print(f"| at one request a call it would be | {CALLS / COALESCE_RPM * 60:.0f} s |")
    print(f"| requests, 429s | {stats['requests']}, {stats['statuses'].get('429', 0)} |", flush=True)


# Idle --------------------------------------------------------------------------------------------------------------

PAIRS = 150


def idle(made: Bench) -> None:
    """Time lone calls on an idle lane, publish to result, each beside a plain request to the same endpoint."""
    server = made.stand_in(latency_ms=20)
    made.put("docs", server, 3000)
    ours, plain = [], []
    with made.workers(1), httpx.Client(timeout=30) as client:
        for n in range(PAIRS + 20):
            begin = time.perf_counter()
            made.app.send_task(EMBED_TASK, ([f"text {n}"], "docs")).get(timeout=30)
            middle = time.perf_counter()
            body = {"model": "docs", "input": [f"plain {n}"], "encoding_format": "base64"}
            client.post(f"{server.url}/v1/embeddings", json=body).raise_for_status()
            end = time.perf_counter()
            if n >= 20:  # connections, caches
                ours.append(middle - begin)
                plain.append(end - middle)
            time.sleep(0.05)
    added = sorted(mine - other for mine, other in zip(ours, plain, strict=True))
    print("| one text, an endpoint that takes 20 ms | median | 95th percentile |")
    print("|---|---:|---:|")
    for name, seen in (("plain request", plain), ("publish to result", ours), ("added, paired", added)):
        print(f"| {name} | {statistics.median(seen) * 1000:.1f} ms | {sorted(seen)[int(0.95 * PAIRS)] * 1000:.1f} ms |")


# Killed ------------------------------------------------------------------------------------------------------------

HELD, HELD_LATENCY_MS = 60, 3000


def killed(made: Bench) -> None:
    """Kill one of two workers that hold slow requests, with the default timeouts, and wait for all results."""
    server = made.stand_in(latency_ms=HELD_LATENCY_MS)
    made.put("docs", server, 60_000)
    with made.workers(2) as group:
        ids = made.publish("docs", [[f"text {n}"] for n in range(HELD)])
        while server.stats()["in_flight"] < HELD:
            time.sleep(0.02)
        begin = time.monotonic()
        victim = group.processes_[0]
        victim.kill()
        results = [made.app.AsyncResult(task_id).get(timeout=120) for task_id in ids]
        took = time.monotonic() - begin
    twice = sum(result.effort.possibly_billed_twice for result in results)
    again = server.stats()["billed_again"]
    timeout_s = made.settings.visibility_timeout_s
    print(f"| {HELD} requests of {HELD_LATENCY_MS / 1000:g} s in flight in two workers, one killed | |")
    print("|---|---:|")
    print(f"| kill to last result (visibility timeout {timeout_s:g} s) | {took:.1f} s |")
    print(f"| texts paid twice, by the server's count | {again} |")
    print(f"| texts that the results call possibly billed twice | {twice} |", flush=True)


# All of them -------------------------------------------------------------------------------------------------------

#: A scene's name on the command line: what it asks, and how it is run.
SCENES: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "cooling": ("a lane in a 60 s cool-down beside a healthy one", cooling),
    "coalesce": ("many single-text calls on a limited lane", coalesce),
    "idle": ("what an idle lane adds to the endpoint's latency", idle),
    "killed": ("kill -9 of a worker in mid-run: when its messages have run elsewhere", killed),
}


def run(name: str) -> None:
    """Run one scene and print its table."""
    with bench() as made:
        SCENES[name][1](made)
