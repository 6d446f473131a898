"""Cutting documents, here and in other processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from penstock.tasks.backfill.plan.chunker import Chunker
from penstock.tasks.backfill.sources import Document, InvalidRow
from penstock.tasks.chunking import chunk_text

SETTINGS = {"strategy": "word", "max_chunk_size": 10, "overlap": 2}


def documents(count: int) -> list[Any]:
    rows: list[Any] = [Document(n, str(n), f"number {n} " + "some words to cut " * (n % 9)) for n in range(count)]
    rows[3] = InvalidRow(3, None, "invalid_json", "line 4")
    return rows


def test_documents_are_cut_by_the_settings_or_left_whole() -> None:
    rows = documents(20)
    cut = list(Chunker(SETTINGS, lambda: False).cut(rows))
    assert [row for row, _ in cut] == rows
    assert all(spans == (() if isinstance(row, InvalidRow) else chunk_text(row.text, SETTINGS)) for row, spans in cut)
    left = list(Chunker(None, lambda: False).cut(rows))
    assert all(spans == (() if isinstance(row, InvalidRow) else ((0, len(row.text)),)) for row, spans in left)


def test_other_processes_cut_as_this_one_does_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.tasks.backfill.plan.chunker.PATIENCE_S", 0.0)
    monkeypatch.setattr("penstock.tasks.backfill.plan.chunker.BLOCK_ROWS", 16)
    rows = documents(100)
    assert list(Chunker(SETTINGS, lambda: True, 1).cut(rows)) == list(Chunker(SETTINGS, lambda: False).cut(rows))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_row_on_which_a_separator_takes_too_long_is_invalid_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    monkeypatch.setattr("penstock.tasks.chunking.separators.BUDGET_S", 0.2)
    monkeypatch.setattr("penstock.tasks.backfill.plan.chunker.PATIENCE_S", 0.0)
    # A thread in place of a process, which would not have the smaller budget.
    monkeypatch.setattr(
        "penstock.tasks.backfill.plan.chunker.ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(max_workers=1)
    )
    settings = {"strategy": "recursive", "max_chunk_size": 10, "separators": ["(a+)+$"]}
    words = "some words to cut " * 4
    texts = [words, words, words + "a" * 5000 + "b", words]
    rows = [Document(n, f"d{n}", text, mark=n) for n, text in enumerate(texts)]
    cut = list(Chunker(settings, lambda: elsewhere, 1).cut(rows))
    assert [row for row, _ in cut if isinstance(row, Document)] == [rows[0], rows[1], rows[3]]
    invalid, spans = cut[2]
    assert isinstance(invalid, InvalidRow)
    assert (invalid.ordinal, invalid.id, invalid.code, invalid.mark) == (2, "d2", "pattern_too_slow", 2)
    assert "separator [(a+)+$] takes too long on this text" in invalid.message
    assert spans == ()
