"""The backfills that this home knows: a small file a job that names its output folder; the rest is in its ledger."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from penstock.config.errors import FormatTooNew
from penstock.tasks.backfill.ledger.folder import HIDDEN, LOCK, OutputFolder
from penstock.tasks.backfill.ledger.ledger import FILE, Tally, check_format, read_facts

JOBS = "jobs"
"""The folder of a home that notes its backfills."""

State = Literal["running", "stopped", "done", "newer", "gone"]


@dataclass(frozen=True)
class JobState:
    """A backfill as an operator sees it.

    Args:
        name: what the user called it, or the output folder's name.
        out: the output folder.
        state: ``running``, ``stopped`` (the same command goes on), ``done``, ``newer`` (only a newer version can read
            its ledger), or ``gone``: its folder is no more.
        source, endpoint: what is embedded, and by whom.
        tally: counts, as of the last shard.
    """

    name: str
    out: Path
    state: State
    source: str = ""
    endpoint: str = ""
    tally: Tally = field(default_factory=Tally)


def remember(home: Path, folder: OutputFolder) -> None:
    """Note a job in the home, so that ``jobs list`` finds it. A home that cannot be written to costs only that."""
    record = {"out": str(folder.path.resolve())}
    try:
        (home / JOBS).mkdir(parents=True, exist_ok=True)
        (home / JOBS / f"{folder.ledger.job}.json").write_bytes(orjson.dumps(record))
    except OSError:
        return


def known_jobs(home: Path) -> list[JobState]:
    """Return the jobs noted in a home, the latest first."""
    records = sorted((home / JOBS).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return list(_states(records))


def _states(records: list[Path]) -> Iterator[JobState]:
    for record in records:
        try:
            out = Path(orjson.loads(record.read_bytes())["out"])
        except (OSError, ValueError, KeyError):
            continue
        try:
            yield read_job(out, record.stem)
        except FormatTooNew:  # one such must not keep the others from being listed
            yield JobState(out.name, out, "newer")


def read_job(out: Path, job: str | None = None) -> JobState:
    """Read a job's state from its output folder, without disturbing a run.

    Args:
        out: the folder.
        job: the job's id; a folder that has another one by now counts as gone.

    Raises:
        FormatTooNew: a newer version wrote its ledger.
    """
    path = out / HIDDEN / FILE
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
            facts = read_facts(ledger)
        check_format(facts, path)
        identity = facts["identity"]
    except (sqlite3.Error, KeyError):
        return JobState(out.name, out, "gone")
    if job is not None and facts["job"] != job:
        return JobState(out.name, out, "gone")
    state: State = "done" if "report" in facts else "running" if _is_locked(out) else "stopped"
    name = identity.get("job") or out.name
    return JobState(name, out, state, identity["source"]["name"], identity["endpoint"], Tally(**facts["tally"]))


def _is_locked(out: Path) -> bool:
    """Whether a run is writing. ``filelock`` has no shared lock by ``flock``, and none for who may only read."""
    try:
        with (out / HIDDEN / LOCK).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
