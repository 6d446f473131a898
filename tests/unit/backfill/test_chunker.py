"""Cutting documents, here and in other processes."""

from __future__ import annotations

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
