"""Run seeds: ``python -m tests.simulation --seeds 0:200``; one alone, and what happened in it: ``--seed 17``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from . import seeds
from .scenario import draw


def main() -> int:
    """Run what was asked for. Returns 1 where an invariant does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:200", metavar="FROM:TO", help="default 0:200")
    parser.add_argument("--seed", type=int, help="one seed, told in words")
    parser.add_argument("--about", metavar="WORD", help="of a seed's events only those that name this")
    parser.add_argument("--last", type=int, default=40, help="of a failed seed's events the last so many")
    parser.add_argument("--first", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args()
    if options.seed is not None:
        print(draw(options.seed))
        wanted = range(options.seed, options.seed + 1)
    else:
        first, _, last = options.seeds.partition(":")
        wanted = range(int(first), int(last))
    began = time.perf_counter()
    failed, calls, requests, cut_short = [], 0, 0, 0
    for outcome in seeds.run_all(wanted, min(options.processes, len(wanted)), options.first):
        calls, requests, cut_short = calls + outcome.calls, requests + outcome.requests, cut_short + outcome.cut_short
        if outcome.invariant:
            failed.append(outcome.seed)
            print(f"seed {outcome.seed}: {outcome.words}", flush=True)
            told = [each for each in outcome.log if options.about is None or options.about in each]
            print("\n".join(told[-options.last :]), flush=True)
            print(f"again: python -m tests.simulation --seed {outcome.seed}", flush=True)
    took = time.perf_counter() - began
    print(
        f"{len(wanted)} seeds, {calls} script calls, {requests} requests, {cut_short} cut short, {took:.0f} s: "
        f"{len(failed)} failed {failed or ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
