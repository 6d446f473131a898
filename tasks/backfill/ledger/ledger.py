"""The durable record of a backfill: one SQLite file in the output folder, from which a killed run goes on.

The order of writing is the whole of its safety:

1. A *plan* (a batch with its texts, what became of the rows before it, where to read on) is written before the batch
   is sent. So a batch may be sent twice after a crash, but is never forgotten, and no row is planned twice.
2. A *shard* is written and flushed under the hidden folder, then entered here together with all it holds (its batches,
   their dead letters, the counts): this is the moment at which its rows are done. Then it is renamed into place, then
   the stored results are dropped. After a crash in between, the last two are done again.
3. What failed is *tried again* by a second pass over the source, which is planned as the first one was (``retries``).
   Until that has ended the job is not finished, so that whoever runs it goes on with the pass.

Knows nothing of Celery and of Parquet.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import orjson
import zstandard

from penstock.config.errors import JobError
from penstock.config.formats import FIELD, LEDGER
from penstock.tasks.backfill.ledger import retries
from penstock.tasks.backfill.ledger.retries import Retry
from penstock.tasks.backfill.plan.batch import (
    DIGEST_BYTES,
    WHOLE_DOCUMENT,
    Batch,
    DeadLetter,
    FailedRow,
    OutputRow,
    Plan,
    Position,
)

# ``echoes`` is what ledgers of format 1 call duplicates whose vectors are still to come.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY, task TEXT NOT NULL, digests BLOB NOT NULL,
    body BLOB, sent INTEGER NOT NULL DEFAULT 0, shard INTEGER, rows BLOB, failures TEXT);
CREATE INDEX IF NOT EXISTS batches_to_do ON batches (number) WHERE body IS NOT NULL;
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS echoes (
    key INTEGER PRIMARY KEY, batch INTEGER NOT NULL, text INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, id TEXT NOT NULL, chunk INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS echoes_by_batch ON echoes (batch, text);
CREATE TABLE IF NOT EXISTS dead (
    ordinal INTEGER NOT NULL, chunk INTEGER NOT NULL, id TEXT, code TEXT NOT NULL, message TEXT NOT NULL,
    attempts INTEGER NOT NULL, PRIMARY KEY (ordinal, chunk)) WITHOUT ROWID;
"""
FILE = "ledger.sqlite3"


@dataclass
class Tally:
    """What a job has done so far; the report's counts."""

    documents: int = 0
    chunks: int = 0
    embedded: int = 0
    failed: int = 0
    duplicates_reused: int = 0
    requests: int = 0
    tokens: int = 0
    retries: int = 0
    rate_limited: int = 0
    possibly_billed_twice: int = 0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


class TextFailure(NamedTuple):
    """Why a text has no vector."""

    code: str
    message: str
    attempts: int


@dataclass(frozen=True)
class ShardEntry:
    """A finished batch as it goes into a shard.

    Args:
        batch: its number.
        rows: for each text its (first) row in the shard, -1 where it failed.
        failures: of the texts that failed, by the text's index.
    """

    batch: int
    rows: Sequence[int]
    failures: Mapping[int, TextFailure] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """A file of the output: number, rows, and size in bytes."""

    number: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Unresolved:
    """A duplicate whose batch is done: it lacks the vector at ``row`` of ``shard``, or shares the ``failure``."""

    key: int
    output_row: OutputRow
    shard: int
    row: int
    failure: TextFailure | None


class Ledger:
    """The record of one job. One process at a time; see ``penstock.tasks.backfill.ledger.folder``.

    Args:
        folder: the hidden folder that holds it.

    Raises:
        FormatTooNew: a newer version wrote it.
        JobError: the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        with self._translated():
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
            #: Failed rows that are to be tried again and are not planned yet.
            self.left_to_retry = retries.left(self._db)
        self.tally = Tally(**self._fact("tally", {}))

    def _prepare(self) -> None:
        check_format(read_facts(self._db), self._path)  # before anything is written
        # WAL with NORMAL survives every kill; after a power cut the last moments may be missing, never torn.
        # A shard's entry is made durable by the checkpoint that follows it, before results are dropped.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000", "cache_size = -8000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA + retries.SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Facts -------------------------------------------------------------------------------------------

    def _fact(self, name: str, default: Any = None) -> Any:
        with self._translated():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def _set(self, **values: Any) -> None:
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    @property
    def identity(self) -> dict[str, Any] | None:
        """What the job is, as it was given to ``begin``; None in a new ledger."""
        identity: dict[str, Any] | None = self._fact("identity")
        return identity

    @property
    def job(self) -> UUID:
        """The job's id, from which its tasks' ids come."""
        return UUID(self._fact("job"))

    @property
    def position(self) -> Position:
        """Where to read on."""
        return Position(*self._fact("position", Position()))

    @property
    def read_whole(self) -> bool:
        """Whether the source was read to its end."""
        return bool(self._fact("read_whole", False))

    @property
    def repeated_ids(self) -> int:
        """Rows that have an id which a row before them has, as far as that was seen."""
        return int(self._fact("repeated_ids", 0))

    @property
    def report(self) -> dict[str, Any] | None:
        """The report of a finished job, None while it is not finished."""
        report: dict[str, Any] | None = self._fact("report")
        return report

    @property
    def retry(self) -> Retry | None:
        """The pass over what failed that is under way, None when there is none."""
        fact = self._fact("retry")
        return None if fact is None else Retry(**fact)

    @property
    def dimensions(self) -> int | None:
        """Length of the job's vectors, None until the first has come."""
        dimensions: int | None = self._fact("dimensions")
        return dimensions

    def _unset(self, name: str) -> None:
        self._db.execute("DELETE FROM facts WHERE name = ?", (name,))

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Make it the record of a new job."""
        with self._transaction():
            self._set(**{FIELD: LEDGER.number}, identity=identity, job=str(uuid4()), tally=asdict(self.tally))

    def note_source(self, path: str | None, id_required: bool) -> None:
        """Note where the source was read from: an absolute path, None for standard input; and how."""
        with self._transaction():
            self._set(source_path=path, id_required=id_required)

    def set_dimensions(self, dimensions: int) -> None:
        """Note the length of the job's vectors."""
        with self._transaction():
            self._set(dimensions=dimensions)

    def spend(self, seconds: float) -> None:
        """Add working time to the count."""
        with self._transaction():
            self._count(Tally(seconds=seconds))

    def finish(self, report: Mapping[str, Any]) -> None:
        """Note that all is done."""
        with self._transaction():
            self._set(report=report)
            self._unset("retry")
        self._flush()

    def _count(self, more: Tally) -> None:
        self.tally += more
        self._set(tally=asdict(self.tally))

    # Plans -------------------------------------------------------------------------------------------

    def record(self, plans: Sequence[Plan]) -> None:
        """Write plans, in order. Their batches may be sent after this and not before."""
        if not plans:
            return
        with self._transaction():
            covered = retries.cover(self._db, plans[-1].position) if (retry := self.retry) else retries.Covered(0, 0)
            for plan in plans:
                if plan.batch is not None:
                    batch = plan.batch
                    self._db.execute(
                        "INSERT INTO batches (number, task, digests, body) VALUES (?, ?, ?, ?)",
                        (batch.number, batch.task_id, batch.digests, pack(batch)),
                    )
                self._db.executemany(
                    "INSERT INTO echoes (batch, text, ordinal, id, chunk, start, stop) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    ((duplicate.batch, duplicate.text, *duplicate.output_row) for duplicate in plan.duplicates),
                )
                self._add_dead_letters(plan.dead)
            self._set(position=plans[-1].position, read_whole=plans[-1].last)
            tally = Tally(chunks=sum(plan.chunks for plan in plans), failed=sum(len(plan.dead) for plan in plans))
            if retry:  # these rows, and chunks that failed, were counted when they were first planned
                tally += Tally(chunks=-covered.chunks, failed=-sum(covered))
                self.left_to_retry = retries.left(self._db)
            else:
                tally.documents = sum(plan.documents for plan in plans)
                self._set(repeated_ids=self.repeated_ids + sum(plan.repeated_ids for plan in plans))
            self._count(tally)

    def mark_sent(self, numbers: Sequence[int]) -> None:
        """Note that batches were sent (once more)."""
        with self._transaction():
            self._db.executemany("UPDATE batches SET sent = sent + 1 WHERE number = ?", ((n,) for n in numbers))

    def mark_unsent(self, number: int) -> None:
        """Note that a batch came back without having been worked on."""
        with self._transaction():
            self._db.execute("UPDATE batches SET sent = 0 WHERE number = ?", (number,))

    def unfinished(self) -> Iterator[tuple[Batch, int]]:
        """Yield the batches that are in no shard yet, with how often each was sent."""
        query = "SELECT number, task, digests, body, sent FROM batches WHERE body IS NOT NULL ORDER BY number"
        for number, task, digests, body, sent in self._db.execute(query):
            yield unpack(number, task, digests, body), sent

    def next_batch(self) -> int:
        """Return the number of the next batch."""
        last = self._db.execute("SELECT max(number) FROM batches").fetchone()[0]
        return 0 if last is None else int(last) + 1

    def digests(self, texts: int) -> Iterator[tuple[int, bytes]]:
        """Yield (batch number, digests) of the latest batches, oldest first, until there are ``texts`` texts.

        Of a retry only its own: a text that failed before it must not share that failure.
        """
        total, first, retry = 0, 0, self.retry
        query = "SELECT number, length(digests) FROM batches WHERE number >= ? ORDER BY number DESC"
        for number, size in self._db.execute(query, (retry.first_batch if retry else 0,)):
            total, first = total + size // DIGEST_BYTES, number
            if total >= texts:
                break
        if total:
            query = "SELECT number, digests FROM batches WHERE number >= ? ORDER BY number"
            yield from self._db.execute(query, (first,))

    # Shards ------------------------------------------------------------------------------------------

    def seal(
        self,
        shard: Shard | None,
        entries: Sequence[ShardEntry] = (),
        duplicates: Sequence[int] = (),
        dead: Sequence[DeadLetter] = (),
        tally: Tally | None = None,
    ) -> None:
        """Enter a shard with everything it holds: from now on its rows are done.

        Args:
            shard: None when nothing was embedded (all failed).
            entries: its batches.
            duplicates: keys of the duplicates that it, or ``dead``, resolves.
            dead: of its batches.
            tally: what it adds to the counts.
        """
        with self._transaction():
            if shard is not None:
                self._db.execute("INSERT INTO shards VALUES (?, ?, ?)", (shard.number, shard.rows, shard.bytes))
            self._db.executemany(
                "UPDATE batches SET body = NULL, shard = ?, rows = ?, failures = ? WHERE number = ?",
                ((shard and shard.number, *_entry_columns(entry), entry.batch) for entry in entries),
            )
            self._db.executemany("DELETE FROM echoes WHERE key = ?", ((key,) for key in duplicates))
            self._add_dead_letters(dead)
            self._count(tally or Tally())
        self._flush()

    def _add_dead_letters(self, dead: Sequence[DeadLetter]) -> None:
        self._db.executemany(
            "INSERT INTO dead (ordinal, chunk, id, code, message, attempts) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (each.ordinal, WHOLE_DOCUMENT if each.chunk is None else each.chunk, *each[2:])
                for each in dead
            ),
        )  # fmt: skip

    def shards(self) -> list[Shard]:
        """Return the shards, in order."""
        return [Shard(*row) for row in self._db.execute("SELECT number, rows, bytes FROM shards ORDER BY number")]

    def tasks_of(self, shard: int) -> list[str]:
        """Return the ids of the tasks whose results a shard holds."""
        return [row[0] for row in self._db.execute("SELECT task FROM batches WHERE shard = ?", (shard,))]

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yield all dead letters in the order of the source."""
        for ordinal, chunk, *rest in self._db.execute("SELECT * FROM dead ORDER BY ordinal, chunk"):
            yield DeadLetter(ordinal, None if chunk == WHOLE_DOCUMENT else chunk, *rest)

    # Duplicates --------------------------------------------------------------------------------------

    def unresolved(self, limit: int) -> list[Unresolved]:
        """Return up to ``limit`` duplicates of finished batches, those of one shard together."""
        query = """
            SELECT e.key, e.ordinal, e.id, e.chunk, e.start, e.stop, e.text, b.shard, b.rows, b.failures
            FROM echoes e JOIN batches b ON b.number = e.batch
            WHERE b.body IS NULL ORDER BY e.batch, e.text LIMIT ?"""
        return [_unresolved(*row) for row in self._db.execute(query, (limit,))]

    # Retries -----------------------------------------------------------------------------------------

    def reopen(self, code: str | None = None) -> int:
        """Open a finished job again for its dead letters. Returns how many are to be tried again; for 0 it stays done.

        Args:
            code: only those of this code; None for all.
        """
        with self._transaction():
            rows = retries.choose(self._db, code)
            if rows:
                self._set(retry=asdict(Retry(code, rows, self.next_batch())), **{FIELD: LEDGER.number})
                self._set(position=Position(), read_whole=False)
                self._unset("report")
        self.left_to_retry = rows
        return rows

    def failed_rows(self) -> Iterator[FailedRow]:
        """Yield what is to be tried again and is not planned yet, in the order of the source. For any thread."""
        return retries.chosen(self._path)

    def failed_texts(self) -> set[bytes]:
        """Return the digests of all texts that were sent and failed."""
        found: set[bytes] = set()
        for digests, failures in self._db.execute("SELECT digests, failures FROM batches WHERE failures IS NOT NULL"):
            found.update(digests[DIGEST_BYTES * text :][:DIGEST_BYTES] for text in map(int, json.loads(failures)))
        return found

    def failure_codes(self) -> dict[str, int]:
        """Return how many dead letters there are of each code."""
        return dict(self._db.execute("SELECT code, count(*) FROM dead GROUP BY code ORDER BY code"))

    # SQLite ------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            before = self.tally
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self.tally = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _flush(self) -> None:
        """Make everything durable against a power cut."""
        with self._translated():
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            raise JobError(
                f"the ledger {self._path} cannot be used ({exc}): see that the disk has space and that the folder may "
                "be written to, then run the same command again; it goes on where it was"
            ) from exc


def read_facts(db: sqlite3.Connection) -> dict[str, Any]:
    """Return the facts in a ledger, of whatever format; none in a new file."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
        return {}
    return {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM facts")}


def check_format(facts: Mapping[str, Any], path: Path) -> None:
    """Check that this version can read a ledger.

    Raises:
        FormatTooNew: a newer version wrote it.
    """
    LEDGER.check(facts.get(FIELD), str(path))


def _entry_columns(entry: ShardEntry) -> tuple[bytes, str | None]:
    failures = json.dumps({index: list(why) for index, why in entry.failures.items()}) if entry.failures else None
    return array("i", entry.rows).tobytes(), failures


def _unresolved(
    key: int, ordinal: int, doc: str, chunk: int, start: int, stop: int,
    text: int, shard: int | None, rows: bytes, failures: str | None,
) -> Unresolved:  # fmt: skip
    row = array("i", rows)[text]
    failure = TextFailure(*json.loads(failures)[str(text)]) if failures and row < 0 else None
    return Unresolved(key, OutputRow(ordinal, doc, chunk, start, stop), -1 if shard is None else shard, row, failure)


def pack(batch: Batch) -> bytes:
    """Return what else a batch holds than number, task and digests."""
    body = orjson.dumps([batch.texts, list(zip(*batch.output_rows, strict=True)), batch.which, batch.size])
    packed: bytes = zstandard.ZstdCompressor(level=1).compress(body)
    return packed


def unpack(number: int, task_id: str, digests: bytes, body: bytes) -> Batch:
    """Return a batch again."""
    texts, columns, which, size = orjson.loads(zstandard.ZstdDecompressor().decompress(body))
    return Batch(number, task_id, texts, [OutputRow(*row) for row in zip(*columns, strict=True)], which, size, digests)
