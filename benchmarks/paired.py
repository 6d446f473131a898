"""Is this tree as fast as another commit? Both run side by side, in turns, on one machine.

    python benchmarks/paired.py --against 592971e                   ten pairs: five minutes and more
    python benchmarks/paired.py --against HEAD --pairs 3            this tree's changes, a short look
    python benchmarks/paired.py --against 592971e --only engine,idle
    python benchmarks/paired.py --against 592971e --json            all raw numbers

engine      tasks per second of a full queue of single texts, one worker, no limit; 30 ms an answer. The workers are
            stopped until all calls are queued; timed from then to the last result in the caller's hands. And the
            worker's processor time a task (Linux), which other work on the machine disturbs least.
quota       share of 1,800 requests a minute that two workers use in five whole seconds after a warm-up, by the count
            of a server that refuses what is above; and its 429s in the whole run.
idle        what publish to result of a lone call takes more than a plain request beside it, median of 60; 10 ms an
            answer.
coalescing  requests of 400 calls at once, and seconds to the last result, at 600 requests a minute. The workers are
            stopped until all calls are made.

The other commit's files go to a temporary folder. Each side has a Valkey, two workers and a driver of its own; its tree
comes first on ``PYTHONPATH``, third-party packages are the running interpreter's. Every process checks that all modules
of ``penstock`` come from its tree. The measuring code (``paired_side.py``) and the one stand-in are this tree's.

All processes stay up through all pairs: starting workers takes longer than a measurement, and is noise. While one side
is measured the other is idle; how much processor time it takes then is measured too, and printed (Linux). One short
round warms both up and is not counted; nothing else is left out, and a call that fails ends the benchmark.

Within a pair each measurement runs on one side, then at once on the other; which is first changes from pair to pair.
Ratios are this tree's figure to the other's of the same pair. Their median has a bootstrap 90 % interval: within 3 % is
"yes" when all of it is, "no" when none of it is, else, and with fewer than five pairs, "unclear": run more pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from engine import processor_seconds
from lane_bench import DIMENSIONS, span
from paired_bench import ROOT, Side, checkout, environment, prepare, side, stand_in

from support.stand_in import StandIn

MARGIN = 0.03
INTERVAL, RESAMPLES = 90, 10_000
#: Of fewer pairs the bootstrap knows too little: a single pair's interval has no width.
FEWEST_PAIRS = 5

ENGINE_CALLS, ENGINE_LATENCY_MS = 400, 30
QUOTA_RPM, QUOTA_LATENCY_MS = 1800, 30
QUOTA_WARM_UP_S, QUOTA_STEADY_S = 1.5, 5
#: Enough for the first second's burst, the warm-up, the steady seconds, and the parts of seconds around those.
QUOTA_CALLS = int(QUOTA_RPM / 60 * (1 + QUOTA_WARM_UP_S + QUOTA_STEADY_S + 1))
IDLE_CALLS, IDLE_LATENCY_MS = 60, 10
COALESCING_CALLS, COALESCING_RPM, COALESCING_LATENCY_MS = 400, 600, 50

#: Requests a minute that each lane is configured for: a lane is named for its measurement.
LANES = {"engine": None, "quota": QUOTA_RPM, "idle": None, "coalescing": COALESCING_RPM}
Figures = dict[str, float]


# What is measured --------------------------------------------------------------------------------------------------


def engine(server: StandIn, on: Side, calls: int = ENGINE_CALLS) -> Figures:
    """Drain a full queue."""
    prepare(server, rpm=None, latency_ms=ENGINE_LATENCY_MS)
    busy = on.worker_pids[:1]
    before = processor_seconds(busy)
    seconds = on.driver.ask(run="engine", lane="engine", calls=calls, workers=on.worker_pids)["seconds"]
    processor_ms = (processor_seconds(busy) - before) / calls * 1000
    return {"tasks_per_second": calls / seconds, "processor_ms": processor_ms}


def quota(server: StandIn, on: Side, calls: int = QUOTA_CALLS) -> Figures:
    """Use a quota."""
    prepare(server, rpm=QUOTA_RPM, latency_ms=QUOTA_LATENCY_MS)
    on.driver.ask(run="quota", lane="quota", calls=calls)
    stats = server.stats()
    since = stats["first_request_at"] + QUOTA_WARM_UP_S
    steady = span(stats, since, since + QUOTA_STEADY_S + 1)
    refused = float(stats["statuses"].get("429", 0))
    return {"quota_used": steady["served"] / (QUOTA_RPM / 60 * steady["seconds"]), "refusals": refused}


def idle(server: StandIn, on: Side, calls: int = IDLE_CALLS) -> Figures:
    """Call an idle lane."""
    prepare(server, rpm=None, latency_ms=IDLE_LATENCY_MS)
    found = on.driver.ask(run="idle", lane="idle", calls=calls, url=f"{server.url}/v1/embeddings")
    added = [ours - plain for ours, plain in zip(found["ours"], found["plain"], strict=True)]
    plain = statistics.median(found["plain"]) * 1000
    return {"added_ms": statistics.median(added) * 1000, "plain_request_ms": plain}


def coalescing(server: StandIn, on: Side, calls: int = COALESCING_CALLS) -> Figures:
    """Call a limited lane many times at once."""
    prepare(server, rpm=COALESCING_RPM, latency_ms=COALESCING_LATENCY_MS)
    seconds = on.driver.ask(run="coalescing", lane="coalescing", calls=calls, workers=on.worker_pids)["seconds"]
    return {"requests": float(server.stats()["requests"]), "seconds": seconds}


MEASUREMENTS: dict[str, Callable[..., Figures]] = {
    "engine": engine, "quota": quota, "idle": idle, "coalescing": coalescing,
}  # fmt: skip
WARM_UP_CALLS = {"engine": 200, "quota": 50, "idle": 20, "coalescing": 50}

#: Figures with a ratio, and how they are shown: measurement, figure, words, factor, format.
COMPARED = (
    ("engine", "tasks_per_second", "engine, tasks/s", 1, ",.0f"),
    ("engine", "processor_ms", "engine, processor ms a task", 1, ".2f"),
    ("quota", "quota_used", "quota used, %", 100, ".1f"),
    ("idle", "added_ms", "idle lane adds, ms", 1, ".2f"),
    ("coalescing", "requests", "coalescing, requests", 1, ".0f"),
    ("coalescing", "seconds", "coalescing, s", 1, ".2f"),
)


# Running -----------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """All raw numbers.

    Args:
        against: the other commit.
        pairs: for each which side was first, and figures by side and measurement.
        idle_load: processor seconds a second of the side that was not measured, for each measurement.
        seconds: of all pairs, without starting and warming up.
    """

    against: str
    pairs: list[dict[str, Any]] = field(default_factory=list)
    idle_load: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def figures(self, name: str, measurement: str, figure: str) -> list[float]:
        """Return a figure of a side, pair by pair."""
        return [pair[name][measurement][figure] for pair in self.pairs]


@contextlib.contextmanager
def sides(commit: str) -> Iterator[tuple[str, StandIn, list[Side]]]:
    """Have both sides up. Yields the commit's short hash, the stand-in, this side and the other."""
    folder = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp" if Path("/tmp").is_dir() else None))
    try:
        other = folder / "tree"
        other.mkdir()
        against = checkout(commit, other)
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(stand_in(folder, dimensions=DIMENSIONS, headers="none"))
            endpoints = endpoints_file(folder / "endpoints.json", server.url)
            up = [
                stack.enter_context(side(name, tree, folder / name, endpoints, helped="quota"))
                for name, tree in (("this", ROOT), ("other", other))
            ]
            yield against, server, up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def endpoints_file(path: Path, url: str) -> Path:
    """Write the endpoints, each with a quota of its own."""
    endpoints = [
        {
            "inference_id": name,
            "task_type": "text_embedding",
            "service": "openai",
            "service_settings": {
                "api_key": "none", "model_id": name, "url": f"{url}/v1", "rate_limit": {"requests_per_minute": rpm},
            },
        }
        for name, rpm in LANES.items()
    ]  # fmt: skip
    path.write_text(json.dumps(endpoints))
    return path


def run(commit: str, pairs: int, chosen: Sequence[str]) -> Found:
    """Run all pairs."""
    with sides(commit) as (against, server, up):
        found = Found(against)
        for each in up:
            note(f"{each.name}: {each.modules}")
            for name in chosen:
                MEASUREMENTS[name](server, each, calls=WARM_UP_CALLS[name])
        begin = time.monotonic()
        for number in range(pairs):
            found.pairs.append(run_pair(server, up if number % 2 == 0 else up[::-1], chosen, found.idle_load))
            found.seconds = time.monotonic() - begin
            note(f"pair {number + 1} of {pairs}, {found.seconds:.0f} s: {json.dumps(found.pairs[-1])}")
    return found


def run_pair(server: StandIn, order: Sequence[Side], chosen: Sequence[str], idle_load: list[float]) -> dict[str, Any]:
    """Run every measurement on both sides. Returns the figures by side."""
    pair: dict[str, Any] = {"first": order[0].name, **{each.name: {} for each in order}}
    for name in chosen:
        for each, waiting in (order, order[::-1]):
            pids = [waiting.broker, waiting.driver.process.pid, *waiting.worker_pids]
            before, begin = processor_seconds(pids), time.monotonic()
            pair[each.name][name] = MEASUREMENTS[name](server, each)
            idle_load.append((processor_seconds(pids) - before) / (time.monotonic() - begin))
    return pair


def note(text: str) -> None:
    """Say how it goes, beside the results."""
    print(text, file=sys.stderr, flush=True)


# Results -----------------------------------------------------------------------------------------------------------


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap interval of the ratios' median; the same for the same ratios."""
    drawn = np.random.default_rng(0).choice(np.asarray(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [50 - INTERVAL / 2, 50 + INTERVAL / 2])
    return float(low), float(high)


def verdict(pairs: int, low: float, high: float) -> str:
    """Return whether an interval lies within the margin."""
    if pairs < FEWEST_PAIRS:
        return "unclear"
    if max(abs(low - 1), abs(high - 1)) <= MARGIN:
        return "yes"
    return "no" if low > 1 + MARGIN or high < 1 - MARGIN else "unclear"


def summary(found: Found, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Return medians, ratios and verdicts of all compared figures."""
    rows = []
    for measurement, figure, words, factor, form in COMPARED:
        if measurement not in chosen:
            continue
        this, other = (found.figures(name, measurement, figure) for name in ("this", "other"))
        # Without a ratio (no processor times on this system) the row stays, and is unclear.
        ratios = [mine / theirs if theirs > 0 else math.nan for mine, theirs in zip(this, other, strict=True)]
        low, high = interval(ratios)
        medians = {name: statistics.median(each) for name, each in (("this", this), ("other", other))}
        shown = {name: format(median * factor, form) for name, median in medians.items()}
        rows.append(
            {"figure": words, **medians, "shown": shown, "ratios": ratios, "ratio": statistics.median(ratios),
             "interval": [low, high], "within": verdict(len(ratios), low, high)}
        )  # fmt: skip
    return rows


def report(found: Found, chosen: Sequence[str]) -> None:
    """Print the table."""
    print(
        f"| medians of {len(found.pairs)} pairs | this tree | {found.against} | ratio | {INTERVAL} % interval | ",
        end="",
    )
    print(f"within {MARGIN:.0%} |\n|---|---:|---:|---:|---:|---|")
    for row in summary(found, chosen):
        low, high = row["interval"]
        shown = row["shown"]
        print(f"| {row['figure']} | {shown['this']} | {shown['other']} | {row['ratio']:.3f} | ", end="")
        print(f"{low:.3f} to {high:.3f} | {row['within']} |")
    if "quota" in chosen:
        refused = [sum(found.figures(name, "quota", "refusals")) for name in ("this", "other")]
        print(f"| 429s, all pairs of {QUOTA_CALLS} calls | {refused[0]:.0f} | {refused[1]:.0f} | | | |")
    load = found.idle_load
    print(f"\nThe idle side took {statistics.median(load):.1%} of a core (median; at most {max(load):.1%}).")
    print(f"A pair took {found.seconds / len(found.pairs):.1f} s.")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="what this tree is compared with")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--only", default=",".join(MEASUREMENTS), metavar="NAMES", help="measurements, by commas")
    parser.add_argument("--json", action="store_true", help="all raw numbers")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if options.pairs < 1 or not set(chosen) <= set(MEASUREMENTS):
        parser.error(f"--pairs is at least 1; --only has some of {', '.join(MEASUREMENTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then too
    ours = environment(ROOT)
    os.environ.clear()
    os.environ.update(ours)  # the stand-in is this tree's, and nobody's settings count
    found = run(options.against, options.pairs, chosen)
    if options.json:
        print(json.dumps({**vars(found), "summary": summary(found, chosen)}, indent=2))
    else:
        report(found, chosen)


if __name__ == "__main__":
    main()
