"""Trying failed rows again: exactly those, whatever is killed in between, and the counts are those of the whole job."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.config.endpoints.chunking import validate_chunking
from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import Caps, TaskType
from penstock.config.formats import LEDGER
from penstock.tasks.backfill.ledger.ledger import Ledger, ShardEntry, Tally, TextFailure
from penstock.tasks.backfill.plan.batch import Batch, DeadLetter, FailedRow, OutputRow
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.plan.planner import digest
from penstock.tasks.backfill.plan.retry import FailedRows
from penstock.tasks.backfill.reading import read_on
from penstock.tasks.backfill.sources import Document, InvalidRow, Row
from penstock.tasks.chunking import PatternTooSlow, try_chunks

ENDPOINT = Endpoint(
    "docs",
    TaskType.TEXT_EMBEDDING,
    "openai",
    {},
    caps=Caps(inputs=3),
    rate_limit=RateLimit(),
    chunking_settings={"strategy": "word", "max_chunk_size": 10, "overlap": 1},
)
CHUNKING = validate_chunking(ENDPOINT.chunking_settings)
words = st.lists(st.sampled_from(["good", "bad", "worse", "plain"]), min_size=1, max_size=35).map(" ".join)
corpora = st.lists(st.one_of(words, st.none()), min_size=1, max_size=12)


@dataclass
class Corpus:
    """A source in memory; ``None`` is a row that cannot be read."""

    texts: Sequence[str | None]
    name: str = "corpus"
    fields: None = None
    print_: str | None = "print"

    def fingerprint(self) -> str | None:
        return self.print_

    def progress(self) -> tuple[int, int | None]:
        return 0, None

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        for ordinal, text in list(enumerate(self.texts))[skip:]:
            if text is None:
                yield InvalidRow(ordinal, None, "unreadable", f"row {ordinal + 1}")
            else:
                yield Document(ordinal, f"d{ordinal}", text)


@dataclass
class Run:
    """A job as ``penstock.tasks.backfill.run`` does it, without its broker: its output is what a service answers."""

    folder: Path
    output: list[tuple[int, int]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def go(self, corpus: Corpus, refused: Callable[[str], bool], code: str = "refused", plans: int = 1 << 30) -> None:
        """Go on with the job; be killed after so many plans."""
        with closing(Ledger(self.folder)) as ledger:
            if ledger.identity is None:
                ledger.begin({"job": "a"})
            job = BackfillJob(corpus, ENDPOINT, self.folder)
            for batch, _ in list(ledger.unfinished()):
                self._answer(ledger, batch, refused, code)
            if not ledger.read_whole:
                for number, plan in enumerate(read_on(job, ledger, lambda: False)):
                    if number >= plans:
                        return
                    ledger.record([plan])
                    if plan.batch is not None and plan.batch.number % 3:  # the others' answers come after the kill
                        self._answer(ledger, plan.batch, refused, code)
            for batch, _ in list(ledger.unfinished()):
                self._answer(ledger, batch, refused, code)
            self._resolve(ledger)
            ledger.finish({"failed": ledger.tally.failed})

    def _answer(self, ledger: Ledger, batch: Batch, refused: Callable[[str], bool], code: str) -> None:
        why = TextFailure(code, "no", 1)
        failures = {n: why for n, text in enumerate(batch.texts) if refused(text)}
        pairs = list(zip(batch.output_rows, batch.which, strict=True))
        dead = [DeadLetter(row.ordinal, row.chunk, row.id, *why) for row, n in pairs if n in failures]
        self._emit([row for row, n in pairs if n not in failures])
        self.sent += batch.texts
        entry = ShardEntry(batch.number, [-1 if n in failures else n for n in range(len(batch.texts))], failures)
        ledger.seal(None, [entry], dead=dead, tally=Tally(embedded=len(pairs) - len(dead), failed=len(dead)))

    def _resolve(self, ledger: Ledger) -> None:
        for each in ledger.unresolved(1000):
            row, why = each.output_row, each.failure
            dead = [DeadLetter(row.ordinal, row.chunk, row.id, *why)] if why else []
            self._emit([] if why else [row])
            ledger.seal(None, (), [each.key], dead, Tally(embedded=not why, failed=len(dead)))

    def _emit(self, rows: Sequence[OutputRow]) -> None:
        self.output += [(row.ordinal, row.chunk) for row in rows]

    def reopen(self, code: str | None = None) -> int:
        with closing(Ledger(self.folder)) as ledger:
            return ledger.reopen(code)

    def dead(self) -> list[DeadLetter]:
        with closing(Ledger(self.folder)) as ledger:
            return list(ledger.dead_letters())

    def tally(self) -> Tally:
        with closing(Ledger(self.folder)) as ledger:
            return ledger.tally


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def is_bad(text: str) -> bool:
    return "bad" in text


def everything(corpus: Corpus) -> list[tuple[int, int | None]]:
    found: list[tuple[int, int | None]] = []
    for n, text in enumerate(corpus.texts):
        chunks = [] if text is None else try_chunks(text, CHUNKING)
        assert not isinstance(chunks, PatternTooSlow)
        found += [(n, chunk) for chunk in range(len(chunks))] or [(n, None)]
    return found


def placed(run: Run) -> list[tuple[int, int | None]]:
    return sorted([*run.output, *((each.ordinal, each.chunk) for each in run.dead())], key=str)


@settings(max_examples=150, deadline=None)
@example(["good bad", "bad", "good", "good good good good good good good good bad worse bad"], [], False)
@given(corpora, st.lists(st.integers(0, 4), max_size=4), st.booleans())
def test_failed_rows_are_tried_again_once_and_no_others_whatever_is_killed(
    texts: list[str | None], kills: list[int], mended: bool
) -> None:
    corpus = Corpus(texts)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.go(corpus, is_bad)
        assert placed(run) == sorted(everything(corpus), key=str)
        before, done = run.dead(), list(run.output)
        run.sent.clear()
        assert run.reopen() == len(before)
        # By now some files can be read that could not be.
        later = Corpus([text or ("a worse one " * 9 if mended else None) for text in texts])
        for plans in kills:
            run.go(later, lambda text: "worse" in text, "worse", plans)
        run.go(later, lambda text: "worse" in text, "worse")
        assert placed(run) == sorted(everything(later), key=str)
        assert run.output[: len(done)] == done
        assert {(each.ordinal, each.chunk) for each in before} >= {
            place for place in set(run.output) - set(done) if corpus.texts[place[0]] is not None
        }
        assert not kills or max(Counter(run.sent).values(), default=0) <= 1 + len(kills)
        assert all(each.code in ("worse", "unreadable") for each in run.dead())
        tally = run.tally()
        chunks = [place for place in everything(later) if place[1] is not None]
        assert (tally.documents, tally.chunks) == (len(texts), len(chunks))
        assert (tally.embedded, tally.failed) == (len(run.output), len(run.dead()))


def test_only_the_letters_of_a_code_are_tried_again(run: Run) -> None:
    corpus = Corpus(["good", "bad", None, "plain"])
    run.go(corpus, is_bad)
    assert run.reopen("refused") == 1
    run.sent.clear()
    run.go(corpus, lambda text: False)
    assert run.sent == ["bad"]
    assert [(each.ordinal, each.code) for each in run.dead()] == [(2, "unreadable")]


def test_a_job_without_such_letters_stays_finished(run: Run) -> None:
    run.go(Corpus(["good"]), is_bad)
    assert run.reopen() == run.reopen("refused") == 0
    with closing(Ledger(run.folder)) as ledger:
        assert ledger.report is not None
        assert ledger.retry is None


def test_a_reopened_ledger_is_of_the_new_format_so_that_no_older_version_ends_it(run: Run) -> None:
    run.go(Corpus(["bad"]), is_bad)
    with closing(Ledger(run.folder)) as ledger:
        ledger._set(format=1)
    run.reopen()
    with closing(Ledger(run.folder)) as ledger:
        assert ledger._fact("format") == LEDGER.number == 2


def test_standard_input_is_read_from_its_start(run: Run) -> None:
    corpus = Corpus(["good", "plain", "bad"], print_=None)
    run.go(corpus, is_bad)
    run.reopen()
    run.go(corpus, lambda text: False)
    assert (run.output, run.dead()) == ([(0, 0), (1, 0), (2, 0)], [])


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (["good", "baad"], "row 2 ('d1') is not what it was in corpus"),
        (["good"], "row 2 ('d1') is gone in corpus"),
        (["good", ""], "row 2"),
    ],
    ids=["another text", "no such row", "nothing of it"],
)
def test_a_row_that_is_not_what_it_was_fails_by_name_and_is_not_sent(run: Run, now: list[str], words: str) -> None:
    run.go(Corpus(["good", "bad"]), is_bad)
    run.reopen()
    run.sent.clear()
    run.go(Corpus(now), lambda text: False)
    (letter,) = run.dead()
    assert (letter.ordinal, letter.chunk, letter.id, run.sent) == (1, 0, "d1", [])
    assert words in letter.message
    # Put back as it was, it is done.
    run.reopen()
    run.go(Corpus(["good", "bad"]), lambda text: False)
    assert run.dead() == []


def test_a_row_that_cannot_be_read_any_more_fails_for_each_of_its_chunks() -> None:
    failed = FailedRow(4, "d4", {1: True, 3: True})
    rows = FailedRows(iter([failed]), {digest(b"x")}, "corpus")
    bad = InvalidRow(4, None, "unreadable_file", "file d4: gone")
    ((row, spans),) = rows.restrict((each, ()) for each in rows.select(iter([bad])))
    assert row == bad._replace(id="d4")
    assert [chunk for chunk, span in enumerate(spans) if span] == [1, 3]
