"""The ledger and the folder: what was written is there again, and nobody else's folder is touched."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from penstock.config.errors import ConfigurationError, JobError
from penstock.tasks.backfill.ledger.folder import OutputFolder, open_folder
from penstock.tasks.backfill.ledger.jobs import read_job
from penstock.tasks.backfill.ledger.ledger import Ledger, Shard, ShardEntry, Tally, TextFailure, Unresolved
from penstock.tasks.backfill.plan.batch import Batch, DeadLetter, Duplicate, OutputRow, Plan, Position

IDENTITY: dict[str, Any] = {
    "job": "corpus",
    "source": {"name": "corpus.jsonl", "fingerprint": "abc"},
    "endpoint": "docs",
    "model": {"model_id": "small", "dimensions": 256},
    "chunked": True,
    "text_field": "text",
}


def batch(number: int, texts: int = 2) -> Batch:
    rows = [OutputRow(number * 10 + n, f"d{number}-{n}", 0, 0, 5) for n in range(texts)]
    return Batch(
        number, f"task-{number}", [f"t{n}" for n in range(texts)], rows, list(range(texts)), 9, b"d" * 16 * texts
    )


def plan(number: int, **more: Any) -> Plan:
    return Plan(Position(number + 1, 0, 0), batch(number), documents=2, chunks=2, **more)


@pytest.fixture
def again(tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """Open the ledger (once more)."""
    opened: list[Ledger] = []

    def open_ledger() -> Ledger:
        opened.append(Ledger(tmp_path))
        return opened[-1]

    yield open_ledger
    for each in opened:
        each.close()


@pytest.fixture
def ledger(again: Callable[[], Ledger]) -> Ledger:
    made = again()
    made.begin(IDENTITY)
    return made


def test_a_new_ledger_has_a_job_and_begins_at_the_start(again: Callable[[], Ledger], ledger: Ledger) -> None:
    assert ledger.position == Position()
    assert not ledger.read_whole
    assert ledger.report is None
    assert ledger.next_batch() == 0
    assert ledger.identity == IDENTITY
    assert isinstance(ledger.job, UUID)
    assert again().job == ledger.job


def test_plans_are_there_again_until_they_are_sealed(again: Callable[[], Ledger], ledger: Ledger) -> None:
    letter = DeadLetter(7, None, None, "invalid_json", "line 8")
    ledger.record([plan(0), plan(1, dead=[letter], last=True)])
    ledger.mark_sent([1])
    found = again()
    assert [(each.number, sent) for each, sent in found.unfinished()] == [(0, 0), (1, 1)]
    assert next(found.unfinished())[0].texts == ["t0", "t1"]
    assert (found.position, found.read_whole, found.next_batch()) == (Position(2, 0, 0), True, 2)
    assert found.tally == Tally(documents=4, chunks=4, failed=1)
    assert list(found.dead_letters()) == [letter]
    found.seal(Shard(0, 4, 99), [ShardEntry(0, [0, 1]), ShardEntry(1, [2, 3])], tally=Tally(embedded=4, requests=2))
    last = again()
    assert list(last.unfinished()) == []
    assert last.shards() == [Shard(0, 4, 99)]
    assert last.tasks_of(0) == ["task-0", "task-1"]
    assert last.tally == Tally(documents=4, chunks=4, failed=1, embedded=4, requests=2)


def test_an_echo_is_owed_the_row_of_its_text_or_shares_its_failure(ledger: Ledger) -> None:
    output_rows = [OutputRow(50 + n, f"e{n}", 0, 0, 5) for n in range(3)]
    ledger.record(
        [
            plan(0),
            plan(
                1,
                duplicates=[
                    Duplicate(0, 1, output_rows[0]),
                    Duplicate(0, 0, output_rows[1]),
                    Duplicate(1, 0, output_rows[2]),
                ],
            ),
        ]
    )
    assert ledger.unresolved(10) == []
    why = TextFailure("content_filter", "no", 2)
    ledger.seal(Shard(0, 1, 9), [ShardEntry(0, [-1, 0], {0: why})], dead=[DeadLetter(0, 0, "d0-0", *why)])
    assert ledger.unresolved(10) == [
        Unresolved(2, output_rows[1], 0, -1, why),
        Unresolved(1, output_rows[0], 0, 0, None),
    ]
    ledger.seal(Shard(1, 1, 9), duplicates=[1], tally=Tally(embedded=1, duplicates_reused=1))
    assert [each.key for each in ledger.unresolved(10)] == [2]


def test_a_batch_that_failed_whole_is_done_without_a_shard(ledger: Ledger) -> None:
    ledger.record([plan(0, duplicates=[Duplicate(0, 0, OutputRow(9, "e", 0, 0, 1))])])
    why = TextFailure("server_error", "no", 8)
    ledger.seal(None, [ShardEntry(0, [-1, -1], {0: why, 1: why})])
    assert ledger.shards() == []
    assert [each.failure for each in ledger.unresolved(5)] == [why]


def test_the_latest_digests_come_back_oldest_first(ledger: Ledger) -> None:
    ledger.record([plan(number) for number in range(5)])
    assert [number for number, _ in ledger.digests(3)] == [3, 4]
    assert [number for number, _ in ledger.digests(100)] == [0, 1, 2, 3, 4]


def test_a_failed_write_changes_nothing(again: Callable[[], Ledger], ledger: Ledger) -> None:
    ledger.record([plan(0)])
    before = ledger.tally
    with pytest.raises(JobError, match=r"ledger .* cannot be used"):
        ledger.record([plan(1), plan(0)])
    assert ledger.tally == before
    assert again().next_batch() == 1


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database, but long enough to be taken for one" * 50)
    with pytest.raises(JobError, match="file is not a database"):
        Ledger(tmp_path)


# The folder -------------------------------------------------------------------------------------------


def opened(path: Path, **changes: Any) -> None:
    with open_folder(path, {**IDENTITY, **changes}):
        pass


def test_a_folder_is_made_and_opened_again_by_the_same_job(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "vectors")
    opened(tmp_path / "a" / "vectors")
    opened(tmp_path / "a" / "vectors", job=None)
    opened(tmp_path / "a" / "vectors", source={"name": "moved.jsonl", "fingerprint": "abc"})


DIFFERENCES = [
    ({"job": "other"}, "--job was 'corpus', now 'other'"),
    ({"source": {"name": "b.jsonl", "fingerprint": "x"}}, "SOURCE was corpus.jsonl, now b.jsonl with other content"),
    ({"source": {"name": "corpus.jsonl", "fingerprint": "x"}}, "SOURCE corpus.jsonl has changed since"),
    ({"endpoint": "chat"}, "--endpoint was 'docs', now 'chat'"),
    ({"model": {"model_id": "large", "dimensions": 256}}, "the endpoint's model.model_id was 'small', now 'large'"),
    ({"model": {"model_id": "small"}}, "the endpoint's model.dimensions was 256, now not set"),
    ({"text_field": "body"}, "--text-field was 'text', now 'body'"),
    ({"chunked": False}, "--no-chunk was not given, now given"),
]


@pytest.mark.parametrize(("changes", "message"), DIFFERENCES, ids=[message for _, message in DIFFERENCES])
def test_a_folder_of_another_job_is_refused_with_what_differs_and_the_remedy(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    opened(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        opened(tmp_path, **changes)
    assert message in str(caught.value)
    assert "give another --out folder" in str(caught.value)
    opened(tmp_path)


@pytest.mark.parametrize("name", ["part-00000.parquet", "failed.jsonl", "report.json"])
def test_a_folder_with_files_of_our_names_and_no_ledger_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=rf"holds {name} but no ledger"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ConfigurationError, match="is a file"):
        opened(tmp_path / "out")


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with open_folder(tmp_path, IDENTITY), pytest.raises(JobError, match=r"another run \(process \d+\) is writing to"):
        opened(tmp_path)
    opened(tmp_path)


def test_a_run_that_is_looked_at_as_it_begins_waits_for_the_look_to_end(tmp_path: Path) -> None:
    opened(tmp_path)
    with (tmp_path / ".penstock" / "lock").open("r") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        end = threading.Timer(0.05, lambda: fcntl.flock(look, fcntl.LOCK_UN))
        end.start()
        opened(tmp_path)
        end.join()


def test_a_look_tells_whether_a_run_is_writing_and_leaves_no_lock(tmp_path: Path) -> None:
    with open_folder(tmp_path, IDENTITY):
        assert read_job(tmp_path).state == "running"
    assert read_job(tmp_path).state == "stopped"
    opened(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JobError, match=r"cannot write to .*: Not a directory"):
        opened(tmp_path / "file" / "out")


def test_dead_letters_and_report_are_written_whole(tmp_path: Path) -> None:
    with open_folder(tmp_path, IDENTITY) as folder:
        folder.ledger.record(
            [
                Plan(
                    Position(2),
                    dead=[
                        DeadLetter(1, 2, "b", "content_filter", "caf\u00e9", 3),
                        DeadLetter(0, None, None, "invalid_json", "line 1"),
                    ],
                )
            ]
        )
        folder.write_dead_letters()
        folder.write_report({"documents": 2})
        check_dead_letters(folder)
    assert orjson.loads((tmp_path / "report.json").read_bytes()) == {"documents": 2}
    assert not list((tmp_path / ".penstock").glob("*.part"))


def check_dead_letters(folder: OutputFolder) -> None:
    lines = [orjson.loads(line) for line in (folder.path / "failed.jsonl").read_bytes().splitlines()]
    assert lines == [
        {"id": None, "chunk": None, "code": "invalid_json", "message": "line 1", "attempts": 0},
        {"id": "b", "chunk": 2, "code": "content_filter", "message": "caf\u00e9", "attempts": 3},
    ]


def test_a_ledger_survives_the_kill_of_its_process_in_mid_transaction(
    tmp_path: Path, again: Callable[[], Ledger], ledger: Ledger
) -> None:
    ledger.record([plan(0)])
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM batches")
    other.close()  # what a killed process leaves: an open transaction, rolled back by the next to look
    assert again().next_batch() == 1
