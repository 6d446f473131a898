"""Prove the simulation by its mutants: ``python -m tests.simulation.mutants``."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
#: What the simulation and the unit tests need of the tree.
PARTS = (
    ".src", "benchmarks", "cli", "config", "docs", "examples", "stand_in", "tasks", "tests", "workers",
    "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Dockerfile", "docker-compose.yml", "CONTRIBUTING.md",
)  # fmt: skip
#: Seeds within which a mutant has to be caught.
SEEDS = 200
#: Seconds after which a run is given up: a mutant may never end.
LONGEST_S = 900


@dataclass(frozen=True)
class Verdict:
    """What came of a mutant: ``caught`` by which invariant, in which seed; "" where it was not."""

    name: str
    caught: str
    seed: int = -1


@contextmanager
def mutated(patch: Path | None) -> Iterator[Path]:
    """Have a copy of the tree with a patch applied."""
    with tempfile.TemporaryDirectory(prefix="pk-mutant-") as made:
        folder = Path(made)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, folder / part, symlinks=True, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / part)
        if patch is not None:
            done = subprocess.run(
                ["git", "apply", "-p1", str(patch)], cwd=folder, capture_output=True, text=True, env=environment(folder)
            )
            if done.returncode:
                raise SystemExit(f"{patch.name} does not apply, make it anew: {done.stderr}")
        yield folder


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the copy's packages come first, and git sees no repository around it."""
    path = os.pathsep.join([str(folder / ".src"), str(folder)])
    # Bytecode is kept with the copy, which goes; git looks no further up than the folder.
    return {**os.environ, "PYTHONPATH": path, "GIT_CEILING_DIRECTORIES": str(folder.parent)}


def hunt(patch: Path, seeds: int) -> Verdict:
    """Run seeds on a mutant until one fails."""
    with mutated(patch) as folder:
        command = [sys.executable, "-m", "tests.simulation", "--seeds", f"0:{seeds}", "--processes", "1", "--first"]
        done = subprocess.run(
            command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LONGEST_S
        )
    found = re.search(r"^seed (\d+): (?:\S*Violation: )?(\w+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and found:
        return Verdict(patch.stem, found[2], int(found[1]))
    if done.returncode:
        raise SystemExit(f"{patch.name}: the simulation broke down: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Verdict(patch.stem, "")


def noticed(patch: Path, tests: list[str]) -> Verdict:
    """Run tests on a mutant."""
    with mutated(patch) as folder:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "2", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode and not failed:
        raise SystemExit(f"{patch.name}: the tests broke down: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Verdict(patch.stem, failed[1] if failed else "")


def main() -> int:
    """Run what was asked for. Returns 1 where a mutant lives, or the tests notice one."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="these only")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"at most; default {SEEDS}")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    parser.add_argument(
        "--tests",
        nargs="*",
        metavar="PATH",
        help="run these on each mutant instead (tests/unit): they should pass",
    )
    options = parser.parse_args()
    chosen = [patch for patch in PATCHES if not options.names or patch.stem in options.names]
    if options.tests is not None:
        seen = []
        for patch in chosen:
            each = noticed(patch, options.tests or ["tests/unit"])
            seen.append(each)
            print(f"{each.name}: " + (f"noticed by {each.caught}" if each.caught else "not noticed"), flush=True)
        return int(any(each.caught for each in seen))
    with ThreadPoolExecutor(options.processes) as pool:
        verdicts = []
        for each in pool.map(lambda patch: hunt(patch, options.seeds), chosen):
            print(f"{each.name}: " + (f"seed {each.seed}, {each.caught}" if each.caught else "LIVES"), flush=True)
            verdicts.append(each)
    alive = [each.name for each in verdicts if not each.caught]
    print(f"{len(verdicts) - len(alive)} of {len(verdicts)} mutants caught within {options.seeds} seeds")
    return int(bool(alive) or not verdicts)


if __name__ == "__main__":
    sys.exit(main())
