"""The backfills that this home knows: a small file a job that names its output folder; the rest is in its ledger."""

from __future__ import annotations

import fcntl
import shlex
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from penstock.config.errors import ConfigurationError, FormatTooNew
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


@dataclass(frozen=True)
class JobOptions:
    """What a job was asked for, as its ledger has it.

    Args:
        source: the corpus, by an absolute path; ``-`` for standard input.
        name, fingerprint: what it was called, and what tells it from another.
        failed: how many rows failed, the first of them named in ``first_failed``.
    """

    out: Path
    source: str
    name: str
    fingerprint: str | None
    endpoint: str
    job: str | None
    text_field: str | None
    id_field: str | None
    chunked: bool
    with_text: bool
    failed: int
    first_failed: str

    def command(self, source: str, out: Path | None = None) -> str:
        """Return the command that does the same with a source, into this folder where no other is given."""
        words = ["penstock", "backfill", source, "--endpoint", self.endpoint, "--out", str(out or self.out)]
        given = {"--job": self.job, "--text-field": self.text_field, "--id-field": self.id_field}
        words += [word for flag, value in given.items() if value is not None for word in (flag, value)]
        words += ["--no-chunk"] * (not self.chunked) + ["--no-text"] * (not self.with_text)
        return shlex.join(words)


def read_options(out: Path) -> JobOptions:
    """Read what a job was asked for, without disturbing a run.

    Raises:
        ConfigurationError: the folder has no job.
        FormatTooNew: a newer version wrote its ledger.
    """
    path = out / HIDDEN / FILE
    try:
        with _looked_at(path) as (ledger, facts):
            failed = ledger.execute("SELECT ordinal, id FROM dead ORDER BY ordinal, chunk LIMIT 1").fetchone()
            return _options(out, facts, failed)
    except (sqlite3.Error, KeyError) as exc:
        raise ConfigurationError(f"{out} is not the folder of a backfill: see `penstock jobs list`") from exc


def _options(out: Path, facts: Mapping[str, Any], failed: tuple[int, str | None] | None) -> JobOptions:
    identity = facts["identity"]
    name, fingerprint, id_field = identity["source"]["name"], identity["source"]["fingerprint"], identity["id_field"]
    ordinal, row_id = failed or (-1, None)
    return JobOptions(
        out,
        "-" if fingerprint is None else facts.get("source_path") or name,
        name,
        fingerprint,
        identity["endpoint"],
        identity["job"],
        identity["text_field"],
        # An older ledger does not say whether each row must have it; the usual name was hardly ever given.
        id_field if facts.get("id_required", id_field != "id") else None,
        identity["chunked"],
        identity["with_text"],
        facts["tally"]["failed"],
        f"row {ordinal + 1}" + (f" ({row_id!r})" if row_id is not None else ""),
    )


def refuse_changed_source(out: Path, name: str, fingerprint: str | None) -> None:
    """Refuse to try failed rows again from a source that is not what it was.

    Args:
        out: the job's folder; one that is not there yet has no source.
        name, fingerprint: of the source as it is now.

    Raises:
        ConfigurationError: it names the first row that cannot be had again.
    """
    if not (out / HIDDEN / FILE).exists():
        return
    job = read_options(out)
    if job.failed and job.name == name and job.fingerprint != fingerprint:
        raise ConfigurationError(
            f"SOURCE {name} has changed since: {job.first_failed}, which failed, cannot be had from it as it was. Put "
            f"it back as it was and retry; or embed the changed one: {job.command(name, Path('OTHER_DIR'))}"
        )


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
        with _looked_at(path) as (_, facts):
            identity = facts["identity"]
    except (sqlite3.Error, KeyError):
        return JobState(out.name, out, "gone")
    if job is not None and facts["job"] != job:
        return JobState(out.name, out, "gone")
    state: State = "done" if "report" in facts else "running" if _is_locked(out) else "stopped"
    name = identity.get("job") or out.name
    return JobState(name, out, state, identity["source"]["name"], identity["endpoint"], Tally(**facts["tally"]))


@contextmanager
def _looked_at(path: Path) -> Iterator[tuple[sqlite3.Connection, dict[str, Any]]]:
    """Have a ledger and its facts, to read only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        facts = read_facts(ledger)
        check_format(facts, path)
        yield ledger, facts


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
