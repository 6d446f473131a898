"""Failed rows that are tried again: which they are, and which of them have been planned anew.

They are chosen once, from the dead letters of a finished job. Each keeps its dead letter until a plan has it; from then
on it is a row like any other. So whoever is killed in between loses no row, and none is tried twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from penstock.tasks.backfill.plan.batch import WHOLE_DOCUMENT, FailedRow, Position

SCHEMA = """
CREATE TABLE IF NOT EXISTS retries (
    ordinal INTEGER NOT NULL, chunk INTEGER NOT NULL, id TEXT, sent INTEGER NOT NULL,
    PRIMARY KEY (ordinal, chunk)) WITHOUT ROWID;
"""
_PAGE = 256
# What the planner itself refused was never sent: its text is known to nobody.
_CHOOSE = """
    INSERT INTO retries SELECT ordinal, chunk, id, NOT (attempts = 0 AND code IN ('empty_text', 'input_too_long'))
    FROM dead WHERE :code IS NULL OR code = :code"""
_DROP_CHUNKS = """
    DELETE FROM dead WHERE (ordinal, chunk) IN (SELECT ordinal, chunk FROM retries
    WHERE ordinal <= :skip AND (ordinal < :skip OR chunk < :chunk) AND chunk >= 0)"""
_FORGET_CHUNKS = """
    DELETE FROM retries WHERE ordinal <= :skip AND (ordinal < :skip OR chunk < :chunk) AND chunk >= 0"""
# A whole document is planned chunk by chunk: its letter goes with the first, its choice with the last.
_DROP_DOCUMENTS = """
    DELETE FROM dead WHERE (ordinal, chunk) IN (SELECT ordinal, chunk FROM retries
    WHERE ordinal <= :skip AND (ordinal < :skip OR :chunk > 0) AND chunk < 0)"""
_FORGET_DOCUMENTS = "DELETE FROM retries WHERE ordinal < :skip AND chunk < 0"
_CHOSEN = """
    SELECT ordinal, id, chunk, sent FROM retries WHERE ordinal IN
    (SELECT DISTINCT ordinal FROM retries WHERE ordinal > ? ORDER BY ordinal LIMIT ?) ORDER BY ordinal, chunk"""


@dataclass(frozen=True)
class Retry:
    """A pass over what failed.

    Args:
        code: of the dead letters chosen; None for all.
        rows: how many there are.
        first_batch: number of its first batch: the batches before it know nothing of it.
    """

    code: str | None
    rows: int
    first_batch: int


class Covered(NamedTuple):
    """Dead letters that plans replace: of chunks, and of whole documents."""

    chunks: int
    documents: int


def choose(db: sqlite3.Connection, code: str | None) -> int:
    """Choose the dead letters of a code, or all, to be tried again. Returns how many they are."""
    db.execute("DELETE FROM retries")
    return db.execute(_CHOOSE, {"code": code}).rowcount


def cover(db: sqlite3.Connection, position: Position) -> Covered:
    """Drop the letters of what has been planned anew: all that was chosen and lies before a position."""
    at = {"skip": position.skip, "chunk": position.chunk}
    covered = Covered(db.execute(_DROP_CHUNKS, at).rowcount, db.execute(_DROP_DOCUMENTS, at).rowcount)
    db.execute(_FORGET_CHUNKS, at)
    db.execute(_FORGET_DOCUMENTS, at)
    return covered


def left(db: sqlite3.Connection) -> int:
    """Return how many are not planned yet."""
    return int(db.execute("SELECT count(*) FROM retries").fetchone()[0])


def chosen(path: Path) -> Iterator[FailedRow]:
    """Yield what is not planned yet, in the order of the source, a page at a time.

    Args:
        path: the ledger's file; it may be written to meanwhile.
    """
    last = -1
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)) as db:
        while page := db.execute(_CHOSEN, (last, _PAGE)).fetchall():
            for ordinal, rows in groupby(page, lambda row: row[0]):
                columns = list(zip(*rows, strict=True))
                chunks = dict(zip(columns[2], map(bool, columns[3]), strict=True))
                last = ordinal
                yield FailedRow(ordinal, columns[1][0], {} if WHOLE_DOCUMENT in chunks else chunks)
