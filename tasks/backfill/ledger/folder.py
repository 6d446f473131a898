"""A backfill's output folder: whose it is, that one run at a time writes to it, and files that appear whole or not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from penstock.config.errors import ConfigurationError, JobError
from penstock.tasks.backfill.ledger.ledger import FILE, Ledger
from penstock.tasks.backfill.plan.batch import DeadLetter

HIDDEN = ".penstock"
DEAD_LETTERS = "failed.jsonl"
REPORT = "report.json"
LOCK, HOLDER = "lock", "holder"

LOCK_WAIT_S = 0.3
"""Seconds after which a held lock is another run's: ``penstock jobs list`` takes it for an instant, to look."""

_FLAGS = {
    "job": "--job",
    "source": "SOURCE",
    "endpoint": "--endpoint",
    "text_field": "--text-field",
    "id_field": "--id-field",
    "chunked": "--no-chunk",
    "with_text": "--no-text",
}


class OutputFolder:
    """The output folder of one job, locked for this process.

    Args:
        path: the folder.
        ledger: its record.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path, self.ledger = path, ledger
        self.hidden = path / HIDDEN

    def write_dead_letters(self) -> None:
        """Write ``failed.jsonl`` anew from the ledger."""
        with replaced(self.path / DEAD_LETTERS, self.hidden) as file:
            for letter in self.ledger.dead_letters():
                file.write(dead_letter_line(letter))

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write ``report.json``."""
        with replaced(self.path / REPORT, self.hidden) as file:
            file.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def dead_letter_line(letter: DeadLetter) -> bytes:
    """Return a dead letter as a line of ``failed.jsonl``: id, chunk, code, message, attempts."""
    return orjson.dumps(
        {
            "id": letter.id,
            "chunk": letter.chunk,
            "code": letter.code,
            "message": letter.message,
            "attempts": letter.attempts,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


@contextmanager
def open_folder(path: Path, identity: Mapping[str, Any]) -> Iterator[OutputFolder]:
    """Open the output folder for a job, new or begun before, and lock it.

    Args:
        path: the folder; made if it does not exist.
        identity: what the job is, as plain JSON values. ``source`` is a mapping with ``name`` and ``fingerprint``.

    Raises:
        ConfigurationError: it belongs to another job, or holds files that are not ours; the message names what differs.
        JobError: another run is writing to it, or it cannot be written to.
    """
    hidden = path / HIDDEN
    with writing(path):
        if path.exists() and not path.is_dir():
            raise ConfigurationError(f"{path} is a file: --out names a folder")
        begun = (hidden / FILE).exists()
        if not begun:
            _refuse_foreign(path)
        hidden.mkdir(parents=True, exist_ok=True)
    with _locked(path, hidden):
        ledger = Ledger(hidden)
        try:
            identity = _settle(path, ledger, identity)
            yield OutputFolder(path, ledger)
        finally:
            ledger.close()


def _refuse_foreign(path: Path) -> None:
    """Refuse a folder with files of our names and no ledger: whose they are cannot be known."""
    ours = [*path.glob("part-*.parquet"), *(path / name for name in (DEAD_LETTERS, REPORT) if (path / name).exists())]
    if ours:
        raise ConfigurationError(
            f"{path} holds {ours[0].name} but no ledger of a backfill: give another --out folder, or move these files"
        )


def _settle(path: Path, ledger: Ledger, identity: Mapping[str, Any]) -> Mapping[str, Any]:
    known = ledger.identity
    if known is None:
        ledger.begin(identity)
        return identity
    differences = list(_differences(known, identity))
    if differences:
        raise ConfigurationError(
            f"{path} belongs to another backfill: {'; '.join(differences)}. Run it as before to go on with that one, "
            "or give another --out folder"
        )
    return known


def _differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs, in the words of the command line."""
    for name in dict.fromkeys([*known, *now]):
        then, given = known.get(name), now.get(name)
        if name == "source":
            yield from _source_difference(then or {}, given or {})
        elif isinstance(then, Mapping) and isinstance(given, Mapping):
            keys = [key for key in dict.fromkeys([*then, *given]) if then.get(key) != given.get(key)]
            yield from (
                f"the endpoint's {name}.{key} was {_setting_text(then, key)}, now {_setting_text(given, key)}"
                for key in keys
            )
        elif then != given and not (name == "job" and given is None):
            yield f"{_FLAGS.get(name, name)} was {_value(name, then)}, now {_value(name, given)}"


def _source_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if then.get("fingerprint") == now.get("fingerprint"):
        return
    if then.get("name") == now.get("name"):
        yield f"SOURCE {now.get('name')} has changed since"
    else:
        yield f"SOURCE was {then.get('name')}, now {now.get('name')} with other content"


def _setting_text(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "not set"


def _value(name: str, value: Any) -> str:
    if name in ("chunked", "with_text"):
        return "not given" if value else "given"
    return "not given" if value is None else repr(value)


@contextmanager
def _locked(path: Path, hidden: Path) -> Iterator[None]:
    """Hold the folder's lock; the system drops it when this process ends, however it ends."""
    holder = hidden / HOLDER
    with writing(path):
        try:
            lock = FileLock(hidden / LOCK).acquire(timeout=LOCK_WAIT_S)
        except Timeout:
            who = f" (process {holder.read_text()})" if holder.exists() else ""
            raise JobError(f"another run{who} is writing to {path}: wait for it or end it") from None
        with lock:
            holder.write_text(str(os.getpid()))
            yield


@contextmanager
def replaced(target: Path, scratch: Path) -> Iterator[Any]:
    """Write a file that appears whole, or not at all: written and flushed in ``scratch``, then renamed."""
    part = scratch / f"{target.name}.part"
    with writing(target.parent):
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        flush_folder(target.parent)


def flush_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk says inside the block into an error that says what to do.

    Raises:
        JobError: the disk is full, the folder cannot be written to, and so on.
    """
    try:
        yield
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise JobError(
            f"cannot write to {path}: {reason}. Fix that and run the same command again; it goes on where it was"
        ) from exc
