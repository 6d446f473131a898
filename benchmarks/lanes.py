"""How much of a quota do workers use, and with how many 429s? What does a lane cost its neighbours and its callers?

    python benchmarks/lanes.py                        quotas with 1, 2, 4 and 8 worker processes: some 8 minutes
    python benchmarks/lanes.py --quick                2 worker processes, 60 s
    python benchmarks/lanes.py --workers 2 --only twice
    python benchmarks/lanes.py --cooling              a lane in a 60 s cool-down beside a healthy one
    python benchmarks/lanes.py --coalesce             2,000 single-text calls at 600 requests a minute
    python benchmarks/lanes.py --idle                 what an idle lane adds to the endpoint's latency
    python benchmarks/lanes.py --killed               kill -9 of a worker: when its messages have run elsewhere

Quotas: for each number of worker processes all cases run side by side, each on a lane and a stand-in of its own, with
more work than its limit allows. The share of the quota is what the stand-in served after the first 30 s, by its own
count; 429s are told for that time and for the whole run. The yardstick is a plain asyncio loop in the same minute,
which sends evenly at the same pace (0.7 % under the limit) and does nothing else. ``--apart``: one case at a time.

Each answer prints a markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lane_scenes
from lane_bench import Bench, bench, plain_loop, span

RPM, TPM = 600.0, 120_000.0
LATENCY_MS = 50
#: Seconds of a run that are not counted as steady.
WARM_UP_S = 30.0


@dataclass(frozen=True)
class Case:
    """What the server enforces, and what the endpoint was told: ``right``, ``twice`` as much, or ``none``."""

    kind: str
    window: str
    told: str

    @property
    def name(self) -> str:
        """The endpoint's id."""
        return f"{self.kind}-{self.window}-{self.told}"

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The endpoint's requests and tokens a minute."""
        factor = {"right": 1.0, "twice": 2.0}.get(self.told)
        if factor is None:
            return None, None
        return (RPM * factor, None) if self.kind == "requests" else (None, TPM * factor)

    @property
    def server(self) -> str:
        """What the server enforces, in words."""
        limit = f"{RPM:,.0f} requests/min" if self.kind == "requests" else f"{TPM:,.0f} tokens/min"
        return f"{limit}, {self.window}"

    def calls(self, seconds: float) -> list[list[str]]:
        """Return more work than the limit allows in so many seconds: single texts, or uneven batches of some."""
        if self.kind == "requests":
            return [[f"{self.name} {n}"] for n in range(int(RPM / 60 * seconds * 1.5) + 200)]
        return [_batch(n) for n in range(int(TPM / 250 / 60 * seconds * 1.5) + 200)]


def _batch(n: int) -> list[str]:
    return [f"text {n}-{m} " + "lorem ipsum dolor sit amet " * ((n * 7 + m) % 5) for m in range(1 + n % 31)]


CASES = [
    Case(kind, window, told)
    for told in ("right", "twice", "none")
    for kind, window in (("requests", "bucket-1s"), ("requests", "sliding-10s"), ("tokens", "bucket-1s"))
]
CASES.insert(3, Case("requests", "no-burst", "right"))
PLAIN = Case("requests", "bucket-1s", "plain")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], help="worker processes")
    parser.add_argument("--seconds", type=float, default=92.0, help=f"a run; the first {WARM_UP_S:.0f} s do not count")
    parser.add_argument("--quick", action="store_true", help="2 worker processes, 60 s")
    parser.add_argument("--only", choices=["right", "twice", "none"], nargs="+", default=["right", "twice", "none"])
    parser.add_argument("--apart", action="store_true", help="one case after the other")
    for name, (title, _) in lane_scenes.SCENES.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"this and no quotas: {title}")
    options = parser.parse_args()
    if options.quick:
        options.workers, options.seconds = [2], 60.0
    scenes = [name for name in lane_scenes.SCENES if getattr(options, name)]
    for name in scenes:
        lane_scenes.run(name)
    if not scenes:
        quotas(options)


def quotas(options: argparse.Namespace) -> None:
    """Print the table of quotas, a block of rows for each number of worker processes."""
    cases = [case for case in CASES if case.told in options.only]
    groups = [[case] for case in cases] if options.apart else [cases]
    print("| server allows | endpoint is configured for | workers | quota used | 429s | 429s from the start |")
    print("|---|---|---:|---:|---:|---:|", flush=True)
    for count in options.workers:
        for group in groups:
            for row in measure(group, count, options.seconds):
                print("| " + " | ".join(row) + " |", flush=True)


def measure(cases: Sequence[Case], count: int, seconds: float) -> Iterator[tuple[str, ...]]:
    """Run cases side by side and return their rows."""
    with bench() as made:
        servers = {}
        for case in [*cases, PLAIN]:
            enforced = {"rpm": RPM} if case.kind == "requests" else {"tpm": TPM}
            servers[case] = made.stand_in(window=case.window, latency_ms=LATENCY_MS, **enforced)
        for case in cases:
            made.put(case.name, servers[case], *case.limits)
        with made.workers(count):
            feed(made, cases, seconds)
            begin = time.time()
            asyncio.run(plain_loop(servers[PLAIN].url, RPM, seconds))
            stats = {case: server.stats() for case, server in servers.items()}
        for case in [*cases, PLAIN]:
            yield row(case, stats[case], count, begin + WARM_UP_S, begin + seconds - 1)


def feed(made: Bench, cases: Sequence[Case], seconds: float) -> None:
    """Give every lane more than it can send, and wait until all have begun."""
    for case in cases:
        made.publish(case.name, case.calls(seconds))


def row(case: Case, stats: dict[str, Any], count: int, since: float, until: float) -> tuple[str, ...]:
    """Return a row of the table."""
    steady = span(stats, since, until)
    allowed = (RPM if case.kind == "requests" else TPM) / 60 * steady["seconds"]
    used = steady["served" if case.kind == "requests" else "tokens"] / allowed
    refused = steady["limited"] / max(1.0, steady["served"] + steady["limited"])
    ever = stats["statuses"].get("429", 0) / max(1, stats["requests"])
    if case is PLAIN:
        return case.server, "*plain loop*", "", f"{used:.1%}", f"{refused:.2%}", f"{ever:.2%}"
    told = {"right": "its limit", "twice": "twice its limit", "none": "no limit"}[case.told]
    return case.server, told, str(count), f"{used:.1%}", f"{refused:.2%}", f"{ever:.2%}"


if __name__ == "__main__":
    main()
