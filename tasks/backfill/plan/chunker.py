"""Cuts documents into chunks: here, or in other processes when this one cannot keep up."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any

from penstock.tasks.backfill.plan.planner import Chunked, Spans
from penstock.tasks.backfill.sources import Document, InvalidRow, Row
from penstock.tasks.chunking import PatternTooSlow, try_chunks

PATIENCE_S = 2.0
"""Seconds of chunking, while the lane waits for texts, after which other processes are started. Starting them takes
about half a second of a processor each, so a small corpus never does."""

Cut = Spans | PatternTooSlow
"""What became of a text: its chunks, or why it has none."""

BLOCK_ROWS, BLOCK_CHARACTERS = 256, 256 * 1024


class Chunker:
    """Cuts the texts of rows.

    Args:
        settings: the endpoint's ``chunking_settings``; None leaves each document whole.
        starved: tells whether the lane waits for texts.
        processes: how many to start, if any are needed.
    """

    def __init__(
        self, settings: Mapping[str, Any] | None, starved: Callable[[], bool], processes: int | None = None
    ) -> None:
        self._settings = dict(settings) if settings is not None else None
        self._starved = starved
        self._processes = max(1, (os.cpu_count() or 2) - 1) if processes is None else processes
        self._spent = 0.0

    def cut(self, rows: Iterable[Row]) -> Iterator[Chunked]:
        """Yield each row with its chunks, in order."""
        if self._settings is None:
            return (((row, () if isinstance(row, InvalidRow) else ((0, len(row.text)),))) for row in rows)
        return self._cut(iter(rows), self._settings)

    def _cut(self, rows: Iterator[Row], settings: Mapping[str, Any]) -> Iterator[Chunked]:
        for row in rows:
            if isinstance(row, InvalidRow):
                yield row, ()
                continue
            started = time.perf_counter()
            cut = try_chunks(row.text, settings)
            self._spent += time.perf_counter() - started
            yield (_refused(row, cut) if isinstance(cut, PatternTooSlow) else (row, cut))
            if self._spent > PATIENCE_S and self._starved():
                break
        yield from self._cut_elsewhere(rows, settings)

    def _cut_elsewhere(self, rows: Iterator[Row], settings: Mapping[str, Any]) -> Iterator[Chunked]:
        """Cut in other processes, a few blocks ahead of what is taken."""
        first = next(rows, None)
        if first is None:
            return
        with ProcessPoolExecutor(self._processes, get_context("spawn"), _end_with_parent) as pool:
            ahead: deque[tuple[list[Row], Future[list[Cut]]]] = deque()
            for block in _blocks(first, rows):
                texts = [row.text for row in block if not isinstance(row, InvalidRow)]
                ahead.append((block, pool.submit(_cut_block, texts, settings)))
                if len(ahead) > 2 * self._processes:
                    yield from _joined(*ahead.popleft())
            while ahead:
                yield from _joined(*ahead.popleft())


def _blocks(first: Row, rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Gather rows into blocks worth sending to another process."""
    block, characters = [first], 0
    for row in rows:
        block.append(row)
        characters += 0 if isinstance(row, InvalidRow) else len(row.text)
        if len(block) >= BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _joined(block: Sequence[Row], future: Future[list[Cut]]) -> Iterator[Chunked]:
    cuts = iter(future.result())
    for row in block:
        if isinstance(row, InvalidRow):
            yield row, ()
            continue
        cut = next(cuts)
        yield (_refused(row, cut) if isinstance(cut, PatternTooSlow) else (row, cut))


def _refused(row: Document, why: PatternTooSlow) -> Chunked:
    return InvalidRow(row.ordinal, row.id, why.code, str(why), row.mark), ()


def _cut_block(texts: Sequence[str], settings: Mapping[str, Any]) -> list[Cut]:
    return [try_chunks(text, settings) for text in texts]


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even by kill -9, which no pool notices by itself."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    threading.Thread(target=_outlive, daemon=True).start()


def _outlive() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
