"""How progress is counted and told."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from penstock.cli.backfill.view import Pace, chunks_done, chunks_expected, duration, shown, summary
from penstock.config.endpoints.endpoint import RateLimit
from penstock.tasks.backfill.ledger.ledger import Tally
from penstock.tasks.backfill.progress import Snapshot, quota_use


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


QUOTA = [
    (RateLimit(), 100, 100, 60, None),
    (RateLimit(600, None), 300, 0, 60, 0.5),
    (RateLimit(600, 10_000), 300, 9_000, 60, 0.9),
    (RateLimit(600, None), 300, 0, 30, 1.0),
    (RateLimit(600, None), 300, 0, 0, None),
]


@pytest.mark.parametrize(("limit", "requests", "tokens", "seconds", "share"), QUOTA)
def test_the_use_of_a_quota_is_that_of_its_tighter_limit(
    limit: RateLimit, requests: int, tokens: int, seconds: float, share: float | None
) -> None:
    assert quota_use(limit, requests, tokens, seconds) == share


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(61):
        pace.note(second, 100 * second if second < 40 else 4000 + 10 * (second - 40))
    assert pace.texts_per_second() == pytest.approx(10, rel=0.2)
    assert pace.seconds_left(100) == pytest.approx(10, rel=0.2)
    assert pace.seconds_left(None) is None
    assert Pace.seconds_left(_still(), 100) is None


def test_of_a_retry_the_rows_that_it_tries_again_are_counted() -> None:
    before = Tally(chunks=100, embedded=90, failed=10)
    assert chunks_expected(Snapshot(before, 3, 50, retrying=10, left_to_retry=10)) == 10
    assert chunks_done(Snapshot(before, retrying=10, left_to_retry=10)) == 0
    on_their_way = Tally(chunks=100, embedded=92, failed=5)
    assert chunks_done(Snapshot(on_their_way, retrying=10, left_to_retry=4)) == 3
    assert chunks_done(Snapshot(Tally(chunks=100, embedded=99, failed=1), retrying=10)) == 10


def _still() -> Pace:
    pace = Pace()
    pace.note(0, 5)
    return pace


def test_how_many_chunks_there_will_be_is_told_by_the_share_that_was_read() -> None:
    assert chunks_expected(Snapshot(Tally(chunks=50), 25, 100)) == 200
    assert chunks_expected(Snapshot(Tally(chunks=50), 100, 100, read_whole=True)) == 50
    assert chunks_expected(Snapshot(Tally(chunks=50), 25, None)) is None
    assert chunks_done(Snapshot(Tally(chunks=50, embedded=49, failed=9))) == 50


def test_durations_are_told_as_people_tell_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_where_there_is_no_terminal_there_are_plain_lines(clock: Clock) -> None:
    file = io.StringIO()
    tally = Tally(documents=10, chunks=20, embedded=5, failed=1, retries=2, rate_limited=3)
    with shown(Console(file=file, width=40), "corpus.jsonl to out/ by docs") as watch:
        for second in range(25):
            clock.now += 1
            note = "Paused: the lane of docs is parked" if second == 4 else ""
            watch(Snapshot(tally, 10, 20, lane="open", quota_use=0.97, note=note))
    lines = file.getvalue().splitlines()
    assert lines[:3] == ["corpus.jsonl to out/ by docs", "Paused: the lane of docs is parked", "Going on."]
    assert len(lines) == 5
    assert lines[3].startswith(
        "10 documents, 6 of about 40 chunks, 0 texts/s · quota 97 % · 1 failed · 2 retries · 3 429s"
    )


def test_a_terminal_gets_bars(clock: Clock) -> None:
    file = io.StringIO()
    with shown(Console(file=file, force_terminal=True, width=120), "corpus.jsonl to out/ by docs") as watch:
        watch(Snapshot(Tally(documents=10, chunks=20, embedded=5), 10, 20, note="No worker answers."))
        watch(Snapshot(Tally(documents=10, chunks=20, embedded=15), 10, None))
    said = file.getvalue()
    for part in ("corpus.jsonl to out/ by docs", "10 documents", "5 of about 40 chunks", "No worker answers.", "ETA"):
        assert part in said


def test_the_summary_is_one_sentence() -> None:
    report = {
        "documents": 1000, "chunks": 2000, "embedded": 1999, "failed": 1, "duplicates_reused": 5, "requests": 10,
        "tokens": 12345, "retries": 2, "rate_limited": 3, "possibly_billed_twice": 4, "seconds": 61.23,
        "quota_use": 0.97,
    }  # fmt: skip
    assert summary(report) == (
        "1,000 documents, 2,000 chunks: 1,999 embedded (5 of them equal to others), 1 failed; 10 requests, "
        "12,345 tokens, 2 retries, 3 429s, 4 texts perhaps billed twice; 61.2 s, 97 % of the quota"
    )
