"""What failed is tried again: those rows and no others, killed anywhere, by real commands, workers and a stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backfills import DYING, SMALL_SHARDS, Deployment, Rig, deployed, numbered, whole
from support.waiting import wait_until

FILTER, LENGTH = "content-filter", "too-long"
POISON = {"ZZFIRST": FILTER, "ZZSECOND": FILTER}
STEPS = [
    ("ledger.ledger:Ledger.reopen", 1, "before"),
    ("ledger.ledger:Ledger.reopen", 1, "after"),
    ("ledger.ledger:Ledger.record", 1, "before"),
    ("ledger.ledger:Ledger.record", 1, "after"),
    ("ledger.ledger:Ledger.record", 2, "after"),
    ("dispatch.publisher:BatchPublisher.send", 1, "after"),
    ("targets.parquet:Sink.close", 1, "before"),
    ("targets.parquet:Sink.close", 1, "after"),
    ("ledger.ledger:Ledger.seal", 1, "after"),
    ("targets.writer:publish", 1, "after"),
    ("targets.writer:Writer.settle_duplicates", 1, "after"),
    ("ledger.folder:OutputFolder.write_dead_letters", 1, "after"),
    ("ledger.folder:OutputFolder.write_report", 1, "after"),
    ("ledger.ledger:Ledger.finish", 1, "after"),
]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with deployed() as made:
        yield made


@pytest.fixture
def rig(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    deployment.stand_in.configure(poison=POISON, latency_ms=0)
    made = deployment.rig(tmp_path, monkeypatch, max_inputs_per_request=8)
    yield made
    made.stop()


class Corpus:
    """Rows of which some fail: three of a first kind (two are equal), two of a second, and one that cannot be read."""

    def __init__(self, rig: Rig, name: str, good: int = 60) -> None:
        self.good = numbered(good, f"good {name}")
        self.first = [
            {"id": "f0", "text": f"ZZFIRST {name}"},
            {"id": "f1", "text": f"ZZFIRST other {name}"},
            {"id": "f2", "text": f"ZZFIRST {name}"},
        ]
        self.second = [{"id": f"s{n}", "text": f"ZZSECOND {n} {name}"} for n in range(2)]
        some, rest = self.good[: good // 2], self.good[good // 2 :]
        self.path = rig.corpus([*some, *self.first[:1], b"{bad", *self.second, *rest, *self.first[1:]])
        rig.run(self.path, "--no-chunk", "--job", "the-job", expect=1)
        self.documents = good + 6

    def check(self, rig: Rig, done: list[dict[str, str]], failed: list[tuple[str | None, str]]) -> None:
        rig.check(whole([*self.good, *done]))
        assert sorted(((each["id"], each["code"]) for each in rig.failed()), key=str) == sorted(failed, key=str)
        report = rig.report()
        assert (report["documents"], report["chunks"]) == (self.documents, self.documents - 1)
        assert (report["embedded"], report["failed"]) == (len(self.good) + len(done), len(failed))
        assert not list((rig.out / ".penstock").glob("part-*"))


def letters(rows: list[dict[str, str]], code: str) -> list[tuple[str | None, str]]:
    return [(row["id"], code) for row in rows]


BAD: tuple[str | None, str] = (None, "invalid_json")


def files(rig: Rig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in rig.out.glob("part-*.parquet")}


def test_failed_rows_and_no_others_are_tried_again(rig: Rig, deployment: Deployment) -> None:
    corpus = Corpus(rig, "tried again")
    first = rig.started[-1]
    assert f"6 could not be done; see {rig.out}/failed.jsonl (5 content_filter, 1 invalid_json). To try" in first.log
    assert f"penstock jobs retry-failed {rig.out}" in first.log
    corpus.check(rig, [], [BAD, *letters([*corpus.first, *corpus.second], "content_filter")])
    before, spent = files(rig), rig.report()
    deployment.stand_in.configure(poison={"ZZSECOND": LENGTH})
    texts = deployment.stand_in.stats()["texts_billed"]
    again = rig.retry(expect=1)
    assert "Tried 6 failed rows again. " in again.log
    corpus.check(rig, corpus.first, [BAD, *letters(corpus.second, "input_too_long")])
    assert {name: files(rig)[name] for name in before} == before
    assert len(files(rig)) == len(before) + 1
    assert deployment.stand_in.stats()["texts_billed"] == texts + 2  # what was equal was sent once
    assert rig.report()["requests"] > spent["requests"]
    assert rig.report()["duplicates_reused"] == 1
    deployment.stand_in.configure(poison={})
    rig.retry(expect=1, job="the-job")
    corpus.check(rig, [*corpus.first, *corpus.second], [BAD])
    assert deployment.results_left() == []


def test_only_the_rows_of_a_code_are_tried_again(rig: Rig, deployment: Deployment) -> None:
    corpus = Corpus(rig, "of a code")
    deployment.stand_in.configure(poison={"ZZSECOND": LENGTH})
    rig.retry("--code", "content_filter", expect=1)
    deployment.stand_in.configure(poison={})
    nothing = rig.retry("--code", "content_filter", expect=1)
    assert "Nothing was tried again: no row has failed with the code 'content_filter'." in nothing.log
    corpus.check(rig, corpus.first, [BAD, *letters(corpus.second, "input_too_long")])
    rig.retry("--code", "input_too_long", expect=1)
    corpus.check(rig, [*corpus.first, *corpus.second], [BAD])


def test_the_backfill_itself_retries_when_asked_and_only_then(rig: Rig, deployment: Deployment) -> None:
    rows = [*numbered(20, "asked to retry"), {"id": "p", "text": "ZZFIRST asked to retry"}]
    corpus = rig.corpus(rows)
    rig.run(corpus, "--no-chunk", "--retry-failed", expect=1)  # nothing had failed before
    asked = deployment.stand_in.stats()["requests"]
    rig.run(corpus, "--no-chunk", expect=1)
    assert deployment.stand_in.stats()["requests"] == asked
    deployment.stand_in.configure(poison={})
    report = json.loads(
        _stdout(rig, "backfill", str(corpus), "-e", "docs", "-o", "out", "--no-chunk", "--retry-failed")
    )
    assert (report["embedded"], report["failed"]) == (21, 0)
    rig.check(whole(rows))
    assert rig.failed() == []
    corpus.unlink()
    again = rig.retry()
    assert "Nothing was tried again: no row had failed." in again.log
    assert json.loads(_stdout(rig, "jobs", "retry-failed", "out")) == rig.report() == report


def _stdout(rig: Rig, *arguments: str) -> str:
    argv = [sys.executable, "-m", "penstock.cli.main", *arguments, "--json"]
    run = subprocess.run(argv, capture_output=True, timeout=60, text=True, cwd=rig.folder)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_of_a_document_only_the_chunks_that_failed_are_tried_again(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.stand_in.configure(poison=POISON)
    chunking = {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0}
    rig = deployment.rig(tmp_path, monkeypatch, chunking_settings=chunking)
    sentences = [f"Sentence {n} of this document has quite a few words that all fill it up somehow. " for n in range(9)]
    sentences[4] = sentences[4].replace("quite", "ZZFIRST")
    corpus = rig.corpus([{"id": "d", "text": "".join(sentences)}])
    rig.run(corpus, expect=1)
    (letter,) = rig.failed()
    before = {(row["id"], row["chunk"]) for row in rig.rows()}
    deployment.stand_in.configure(poison={})
    texts = deployment.stand_in.stats()["texts_billed"]
    rig.retry()
    assert deployment.stand_in.stats()["texts_billed"] == texts + 1
    rows = {(row["id"], row["chunk"]) for row in rig.rows()}
    assert rows - before == {("d", letter["chunk"])}
    assert rig.report()["chunks"] == len(rows) == len(rig.rows())
    rig.stop()


@pytest.mark.parametrize(
    ("step", "nth", "when"), STEPS, ids=[f"{when}-{step.split(':')[1]}-{nth}" for step, nth, when in STEPS]
)
def test_a_retry_that_dies_at_this_step_goes_on(
    rig: Rig, deployment: Deployment, step: str, nth: int, when: str
) -> None:
    corpus = Corpus(rig, f"dies {when} {step} {nth}", good=20)
    kept, report, failed = files(rig), rig.report(), rig.failed()
    deployment.stand_in.configure(poison={"ZZSECOND": LENGTH})
    dying = rig.start_retry(argv=[sys.executable, "-c", SMALL_SHARDS + DYING, step, str(nth), when])
    assert dying.wait(60) == 9, dying.log
    if "write_" not in step and "finish" not in step:  # the files are of before until both are written
        assert (rig.report(), rig.failed()) == (report, failed)
    rig.retry(expect=1)
    corpus.check(rig, corpus.first, [BAD, *letters(corpus.second, "input_too_long")])
    assert {name: files(rig)[name] for name in kept} == kept
    assert deployment.results_left() == []


def test_a_job_that_is_not_finished_is_finished_before_its_failures_are_tried_again(
    rig: Rig, deployment: Deployment
) -> None:
    rows = [*numbered(20, "finished before"), {"id": "p", "text": "ZZFIRST finished before"}]
    corpus = rig.corpus(rows)
    step = ["ledger.folder:OutputFolder.write_report", "1", "after"]
    dying = rig.start(corpus, "--no-chunk", argv=[sys.executable, "-c", SMALL_SHARDS + DYING, *step])
    assert dying.wait(60) == 9, dying.log
    deployment.stand_in.configure(poison={})
    rig.run(corpus, "--no-chunk", "--retry-failed")
    rig.check(whole(rows))


def test_a_wider_wish_than_the_retry_that_is_under_way_is_met_after_it(rig: Rig, deployment: Deployment) -> None:
    corpus = Corpus(rig, "a wider wish", good=20)
    deployment.stand_in.configure(poison={"ZZSECOND": LENGTH})
    rig.retry("--code", "content_filter", expect=1)
    deployment.stand_in.configure(poison={"ZZSECOND": FILTER})
    step = ["ledger.ledger:Ledger.reopen", "1", "after"]
    argv = [sys.executable, "-c", SMALL_SHARDS + DYING, *step]
    dying = rig.start_retry("--code", "invalid_json", argv=argv)
    assert dying.wait(60) == 9, dying.log
    rig.retry(expect=1)
    corpus.check(rig, corpus.first, [BAD, *letters(corpus.second, "content_filter")])


def test_a_retry_killed_while_it_waits_for_answers_is_gone_on_with_by_the_jobs_own_command(
    rig: Rig, deployment: Deployment
) -> None:
    corpus = Corpus(rig, "killed while it waits")
    deployment.stand_in.configure(poison={}, latency_ms=3000)
    asked = deployment.stand_in.stats()["requests"]
    child = rig.start_retry()
    wait_until(lambda: deployment.stand_in.stats()["requests"] > asked, "a request is under way", timeout=30)
    child.kill()
    deployment.stand_in.configure(latency_ms=0)
    rig.run(corpus.path, "--no-chunk", expect=1)
    corpus.check(rig, [*corpus.first, *corpus.second], [BAD])
    assert deployment.results_left() == []


def test_a_source_that_moved_or_changed_is_named_with_the_row_and_what_to_do(rig: Rig, deployment: Deployment) -> None:
    corpus = Corpus(rig, "moved")
    before, data = rig.report(), corpus.path.read_bytes()
    moved = rig.folder / "elsewhere.jsonl"
    corpus.path.rename(moved)
    gone = rig.retry(expect=2)
    assert f"row 31 ('f0'), the first that failed, is read from {corpus.path}, which is gone" in gone.log
    assert "penstock backfill PATH --endpoint docs --out" in gone.log
    assert "--no-chunk --retry-failed" in gone.log
    corpus.path.write_bytes(data + b'{"id": "new", "text": "one more"}\n')
    changed = rig.retry(expect=2)
    assert f"SOURCE {corpus.path} has changed since: row 31 ('f0')" in changed.log
    assert rig.report() == before
    deployment.stand_in.configure(poison={})
    rig.run(moved, "--no-chunk", "--retry-failed", "--text-field", "text", expect=1)
    corpus.check(rig, [*corpus.first, *corpus.second], [BAD])


def test_a_job_from_standard_input_says_that_it_must_be_given_again(rig: Rig, deployment: Deployment) -> None:
    rows = [*numbered(20, "given on standard input"), {"id": "p", "text": "ZZFIRST on standard input"}]
    lines = "\n".join(map(json.dumps, rows))
    argv = [sys.executable, "-m", "penstock.cli.main", "backfill", "-", "-e", "docs", "-o", "out", "--no-chunk"]
    subprocess.run(argv, input=lines, text=True, timeout=60, cwd=rig.folder, check=False)
    assert len(rig.failed()) == 1
    refused = rig.retry(expect=2)
    assert "row 21 ('p'), the first that failed, is read from standard input: give the same again" in refused.log
    deployment.stand_in.configure(poison={})
    subprocess.run([*argv, "--retry-failed"], input=lines, text=True, timeout=60, cwd=rig.folder, check=True)
    rig.check(whole(rows))
    assert rig.failed() == []
