"""Backfills from end to end: the command, a real broker, a real worker, the stand-in; what comes out is right."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.stand_in.vectors import vector
from penstock.tasks.backfill.targets.parquet import schema
from penstock.tasks.chunking import chunk_text
from support.backfills import ENDPOINT, Deployment, Rig, deployed, numbered, whole


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with deployed(poison={"ZZPOISON": "content-filter"}) as made:
        yield made


@pytest.fixture
def rig(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = deployment.rig(tmp_path, monkeypatch, max_inputs_per_request=16)
    yield made
    made.stop()


def test_each_row_ends_exactly_once_with_its_own_vector_bit_for_bit(rig: Rig, deployment: Deployment) -> None:
    rows = numbered(500)
    asked = deployment.stand_in.stats()["requests"]
    child = rig.run(rig.corpus(rows), "--no-chunk")
    rig.check(whole(rows))
    report = rig.report()
    assert {name: report[name] for name in ("documents", "chunks", "embedded", "failed", "requests")} == {
        "documents": 500,
        "chunks": 500,
        "embedded": 500,
        "failed": 0,
        "requests": 32,
    }
    assert report["tokens"] > 500
    assert report["quota_use"] is None
    assert deployment.stand_in.stats()["requests"] == asked + 32
    assert rig.failed() == []
    assert pq.read_schema(rig.out / "part-00000.parquet").equals(schema(32, True))
    assert deployment.results_left() == []
    assert "Done: 500 documents, 500 chunks: 500 embedded, 0 failed; 32 requests" in child.log
    assert "sk-backfill-test-key" not in child.log


def test_a_finished_job_says_so_and_spends_nothing(rig: Rig, deployment: Deployment) -> None:
    corpus = rig.corpus(numbered(20, "a finished document"))
    rig.run(corpus, "--no-chunk")
    files = {path: path.stat().st_mtime_ns for path in rig.out.glob("*.*") if path.is_file()}
    asked = deployment.stand_in.stats()["requests"]
    child = rig.run(corpus, "--no-chunk")
    assert "Finished before; nothing was done now." in child.log
    assert deployment.stand_in.stats()["requests"] == asked
    assert {path: path.stat().st_mtime_ns for path in rig.out.glob("*.*") if path.is_file()} == files


def test_bad_rows_become_dead_letters_and_cost_their_neighbours_nothing(rig: Rig) -> None:
    good = numbered(40, "a good neighbour")
    bad: list[dict[str, object] | bytes] = [
        b"{not json",
        b'{"id": "utf8", "text": "caf\xe9"}',
        {"id": "missing"},
        {"id": "number", "text": 7},
        {"id": "empty", "text": ""},
        {"id": "blank", "text": " \n\t "},
        {"id": None, "text": "an id that is null"},
        {"id": ["a"], "text": "an id that is a list"},
        {"id": "filtered", "text": "a text with ZZPOISON in it"},
        {"id": "near", "text": "word " * 9000},
        {"id": "long", "text": "word " * 60_000},
    ]
    integer = {"id": 12345, "text": "an id that is an integer"}
    child = rig.run(rig.corpus([*good[:20], *bad, integer, *good[20:]]), "--no-chunk", expect=1)
    rig.check({**whole(good), ("12345", 0): "an id that is an integer"})
    letters = rig.failed()
    assert [(letter["id"], letter["chunk"], letter["code"]) for letter in letters] == [
        (None, None, "invalid_json"),
        (None, None, "invalid_utf8"),
        ("missing", None, "missing_text"),
        ("number", None, "invalid_text"),
        ("empty", None, "empty_text"),
        ("blank", None, "empty_text"),
        (None, None, "invalid_id"),
        (None, None, "invalid_id"),
        ("filtered", 0, "content_filter"),
        ("near", 0, "input_too_long"),
        ("long", 0, "input_too_long"),
    ]
    assert letters[0]["message"].startswith("line 21: not valid JSON")
    assert letters[8]["attempts"] > 0
    assert letters[10]["attempts"] == 0
    report = rig.report()
    assert (report["documents"], report["embedded"], report["failed"]) == (52, 41, 11)
    assert "11 could not be done; see" in child.log
    again = rig.run(rig.folder / "corpus.jsonl", "--no-chunk", expect=1)
    assert "Finished before" in again.log


def test_documents_are_cut_by_the_endpoints_settings(rig: Rig, deployment: Deployment) -> None:
    settings = {"strategy": "word", "max_chunk_size": 12, "overlap": 3}
    rig.put(deployment.server.url, chunking_settings=settings, max_inputs_per_request=16)
    source = rig.folder / "texts"
    texts = {f"a/{n}.md": " ".join(f"word{n}x{k}" for k in range(5 + 7 * n)) for n in range(12)}
    texts["b.txt"] = "Caf\u00e9 \U0001f600 na\u00efve " * 9
    for name, text in texts.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    rig.run(source)
    expected = {
        (name, chunk): text[start:end]
        for name, text in texts.items()
        for chunk, (start, end) in enumerate(chunk_text(text, settings))
    }
    rig.check(expected)
    for row in rig.rows():
        assert texts[row["id"]][row["start"] : row["end"]] == row["text"]
    assert rig.report()["chunks"] == len(expected) > 20


def test_a_text_on_which_a_separator_takes_too_long_is_a_dead_letter_and_the_run_goes_on(
    rig: Rig, deployment: Deployment
) -> None:
    settings = {"strategy": "recursive", "max_chunk_size": 10, "separators": ["(a+)+$"]}
    rig.put(deployment.server.url, chunking_settings=settings)
    rows = numbered(10)
    slow = {"id": "slow", "text": "some words to cut " * 4 + "a" * 5000 + "b"}
    rig.run(rig.corpus([*rows[:5], slow, *rows[5:]]), expect=1)
    rig.check(whole(rows))
    assert [(letter["id"], letter["chunk"], letter["code"]) for letter in rig.failed()] == [
        ("slow", None, "pattern_too_slow")
    ]
    assert "separator [(a+)+$] takes too long" in rig.failed()[0]["message"]


def test_equal_texts_are_sent_once_and_every_row_is_written(rig: Rig, deployment: Deployment) -> None:
    rows = [{"id": f"r{n}", "text": f"one of a hundred and twenty texts: {n % 120}"} for n in range(600)]
    rows += [{"id": f"p{n}", "text": "ZZPOISON again and again"} for n in range(5)]
    before = deployment.stand_in.stats()["texts_billed"]
    rig.run(rig.corpus(rows), "--no-chunk", expect=1)
    rig.check(whole(rows[:600]))
    assert deployment.stand_in.stats()["texts_billed"] - before == 120
    report = rig.report()
    assert (report["embedded"], report["duplicates_reused"], report["failed"]) == (600, 480, 5)
    assert {(letter["id"], letter["code"]) for letter in rig.failed()} == {
        (f"p{n}", "content_filter") for n in range(5)
    }


def test_every_kind_of_source_gives_its_rows(rig: Rig) -> None:
    rows = numbered(30, "a row of any format")
    jsonl = rig.corpus(rows)
    (rig.folder / "c.jsonl.gz").write_bytes(gzip.compress(jsonl.read_bytes()))
    lines = ["id;text", *(f'{row["id"]};"{row["text"]}"' for row in rows)]
    (rig.folder / "c.csv").write_text("\n".join(lines))
    pq.write_table(pa.Table.from_pylist(rows), rig.folder / "c.parquet")
    (rig.folder / "c.txt").write_text("\n".join(row["text"] for row in rows))
    for name in ("c.jsonl.gz", "c.csv", "c.parquet"):
        rig.run(rig.folder / name, "--no-chunk", "--out", str(rig.folder / f"out-{name}"))
        rig.check(whole(rows), rig.folder / f"out-{name}")
    rig.run(rig.folder / "c.txt", "--no-chunk")
    rig.check({(str(n), 0): row["text"] for n, row in enumerate(rows, 1)})


def test_standard_input_is_read_as_jsonl(rig: Rig) -> None:
    rows = numbered(30, "a row from standard input")
    argv = [
        sys.executable,
        "-m",
        "penstock.cli.main",
        "backfill",
        "-",
        "-e",
        ENDPOINT,
        "-o",
        str(rig.out),
        "--no-chunk",
    ]
    data = rig.corpus(rows).read_bytes()
    done = subprocess.run(argv, input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rig.check(whole(rows))


def test_the_texts_may_be_left_out(rig: Rig) -> None:
    rows = numbered(20, "a text that is left out")
    rig.run(rig.corpus([*rows, {"id": "twin", "text": rows[0]["text"]}]), "--no-chunk", "--no-text")
    assert pq.read_schema(rig.out / "part-00000.parquet").equals(schema(32, False))
    assert len(rig.rows()) == 21
    assert {row["id"]: row["embedding"] for row in rig.rows()}["twin"] == vector(rows[0]["text"], 32).tobytes()


def test_the_report_is_printed_as_json_and_nothing_else_on_standard_output(rig: Rig) -> None:
    corpus = rig.corpus(numbered(20, "for the report"))
    argv = [sys.executable, "-m", "penstock.cli.main", "backfill", str(corpus), "-e", ENDPOINT, "-o", str(rig.out)]
    done = subprocess.run([*argv, "--no-chunk", "--json"], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == rig.report()


def test_repeated_ids_are_kept_and_told(rig: Rig) -> None:
    rows = [{"id": "same", "text": f"text number {n} under one id"} for n in range(5)]
    child = rig.run(rig.corpus(rows), "--no-chunk")
    assert sorted(row["text"] for row in rig.rows()) == sorted(row["text"] for row in rows)
    assert "at least 4 rows have an id that an earlier row has; each was kept" in child.log


def test_many_small_shards_hold_every_row_once(rig: Rig) -> None:
    rows = numbered(300, "a row of one of many shards")
    rows += [{"id": f"twin{n}", "text": rows[n]["text"]} for n in range(0, 300, 7)]
    code = (
        "import sys; from penstock.tasks.backfill.targets import parquet; "
        "parquet.SHARD_ROWS = 40; parquet.GROUP_BYTES = 2000; "
        "from penstock.cli.main import main; main(sys.argv[1:])"
    )
    argv = [sys.executable, "-c", code, "backfill", str(rig.corpus(rows)), "-e", ENDPOINT, "-o", str(rig.out)]
    done = subprocess.run([*argv, "--no-chunk"], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(rig.out.glob("part-*.parquet"))) > 5
    rig.check(whole(rows))
    assert rig.report()["duplicates_reused"] == 43


def test_jobs_are_listed_and_shown_by_name_or_folder(rig: Rig) -> None:
    rig.run(rig.corpus(numbered(20, "of a job that is listed")), "--no-chunk", "--job", "listed")

    def jobs(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "penstock.cli.main", "jobs", *arguments]
        return subprocess.run(argv, capture_output=True, timeout=60, text=True, cwd=rig.folder)

    listed = json.loads(jobs("list", "--json").stdout)["jobs"]
    (ours,) = [job for job in listed if job["name"] == "listed"]
    assert (ours["state"], ours["embedded"], ours["endpoint"], ours["out"]) == ("done", 20, ENDPOINT, str(rig.out))
    assert "listed" in jobs().stdout
    for name in ("listed", "out"):
        shown = jobs("show", name)
        assert shown.stdout.startswith("listed: done, ")
        assert "20 documents, 20 chunks: 20 embedded, 0 failed" in shown.stdout
    missing = jobs("show", "nowhere")
    assert missing.returncode == 2
    assert "no backfill is named 'nowhere'" in missing.stderr
