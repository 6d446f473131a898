"""How a backfill looks while it runs: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.cli.output import LANE_STYLES
from penstock.tasks.backfill.progress import Snapshot, Watch

LINE_S = 10.0
RATE_S = 15.0


class Pace:
    """Texts a second over the last quarter of a minute, and how long the rest will take at that.

    Snapshots may come in any rhythm.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def note(self, at: float, done: int) -> None:
        """Note how many chunks were done at a time, in seconds of a monotonic clock."""
        self._points.append((at, done))
        while len(self._points) > 2 and self._points[1][0] < at - RATE_S:
            self._points.popleft()

    def texts_per_second(self) -> float:
        """Return the rate, 0 while it is not known."""
        (first_at, first), (last_at, last) = self._points[0], self._points[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0

    def seconds_left(self, left: float | None) -> float | None:
        """Return how long ``left`` chunks will take, None where that cannot be known."""
        rate = self.texts_per_second()
        return left / rate if left is not None and rate > 0 else None


def chunks_expected(now: Snapshot) -> float | None:
    """Return how many chunks there will be: known once all is read, before that by the share of the source.

    Of a retry: how many rows it tries again.
    """
    if now.retrying:
        return now.retrying
    if now.read_whole:
        return now.tally.chunks
    return now.tally.chunks * now.total / now.read if now.total and now.read else None


def chunks_done(now: Snapshot) -> int:
    """Return how many chunks need nothing more: embedded or failed. Rows that failed whole had no chunks."""
    if now.retrying:
        on_their_way = max(0, now.tally.chunks - now.tally.embedded - now.tally.failed)
        return max(0, now.retrying - now.left_to_retry - on_their_way)
    return min(now.tally.chunks, now.tally.embedded + now.tally.failed)


@contextmanager
def shown(console: Console, title: str) -> Iterator[Watch]:
    """Show a run inside the block; yields what is to be called with each snapshot.

    Args:
        console: where; a terminal gets bars, anything else a line every ten seconds and whenever something changes.
        title: the first line.
    """
    if not console.is_terminal:
        yield _PlainLines(console, title).show
        return
    bars = _Bars(title)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(now: Snapshot) -> None:
            live.update(bars.render(now), refresh=True)

        yield show


class _Bars:
    def __init__(self, title: str) -> None:
        self._title, self._pace = title, Pace()

    def render(self, now: Snapshot) -> Group:
        done, expected = chunks_done(now), chunks_expected(now)
        self._pace.note(time.monotonic(), done)
        left = self._pace.seconds_left(None if expected is None else expected - done)
        about = "" if now.read_whole else "about "
        table = Table.grid(padding=(0, 1))
        table.add_row(
            "read", _bar(now.read, now.total), _percent(now.read, now.total), f"{now.tally.documents:,} documents"
        )
        table.add_row(
            "embedded",
            _bar(done, expected),
            _percent(done, expected),
            f"{done:,} of {about}{round(expected):,} chunks" if expected is not None else f"{done:,} chunks",
        )
        lines: list[Any] = [Text(self._title, "bold"), table, _facts(now, self._pace, left)]
        if now.note:
            lines.append(Text(now.note, "bold yellow"))
        return Group(*lines)


def _bar(done: float, whole: float | None) -> ProgressBar:
    return ProgressBar(total=whole or None, completed=min(done, whole or 0), width=36, pulse=not whole)


def _percent(done: float, whole: float | None) -> str:
    return f"{min(100.0, 100 * done / whole):3.0f} %" if whole else "  - %"


def _facts(now: Snapshot, pace: Pace, left: float | None) -> Text:
    lane = Text(now.lane, LANE_STYLES.get(now.lane, ""))
    failed = Text(f"{now.tally.failed:,} failed", "red" if now.tally.failed else "")
    quota = f"quota {100 * now.quota_use:.0f} %" if now.quota_use is not None else "no quota"
    parts: list[Text] = [
        Text(f"{pace.texts_per_second():,.0f} texts/s"),
        Text(quota),
        failed,
        Text(f"{now.tally.retries:,} retries"),
        Text(f"{now.tally.rate_limited:,} 429s"),
        Text("lane ").append_text(lane),
        Text(f"{now.outstanding:,} messages out"),
        Text(f"ETA {duration(left)}" if left is not None else "ETA -", "bold"),
    ]
    return Text(" · ").join(parts)


class _PlainLines:
    """A line every ten seconds, and at once when something changes; made for logs."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._pace = console, Pace()
        self._next = time.monotonic() + LINE_S
        self._note = ""
        self._print(title)

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def show(self, now: Snapshot) -> None:
        at, done = time.monotonic(), chunks_done(now)
        self._pace.note(at, done)
        if now.note != self._note:
            self._note = now.note
            self._print(now.note or "Going on.")
        if at >= self._next:
            self._next = at + LINE_S
            self._print(self._line(now, done))

    def _line(self, now: Snapshot, done: int) -> str:
        expected = chunks_expected(now)
        left = self._pace.seconds_left(None if expected is None else expected - done)
        whole = f" of {'' if now.read_whole else 'about '}{round(expected):,}" if expected is not None else ""
        return f"{now.tally.documents:,} documents, {done:,}{whole} chunks, {_facts(now, self._pace, left).plain}"


def duration(seconds: float) -> str:
    """Return a duration as people read it: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def summary(report: Mapping[str, Any]) -> str:
    """Return the report as a sentence."""
    use = report["quota_use"]
    reused = f" ({report['duplicates_reused']:,} of them equal to others)" if report["duplicates_reused"] else ""
    twice = f", {report['possibly_billed_twice']:,} texts perhaps billed twice" * bool(report["possibly_billed_twice"])
    return (
        f"{report['documents']:,} documents, {report['chunks']:,} chunks: {report['embedded']:,} embedded{reused}, "
        f"{report['failed']:,} failed; {report['requests']:,} requests, {report['tokens']:,} tokens, "
        f"{report['retries']:,} retries, {report['rate_limited']:,} 429s{twice}; {report['seconds']:.1f} s"
        + (f", {100 * use:.0f} % of the quota" if use is not None else "")
    )
