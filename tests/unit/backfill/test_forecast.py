"""A dry run counts what the backfill would send."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import Caps, TaskType
from penstock.tasks.backfill.plan.forecast import forecast
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.sources import open_source

ENDPOINT = Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, caps=Caps(inputs=10), rate_limit=RateLimit(60))


def job(folder: Path, texts: list[object], endpoint: Endpoint = ENDPOINT) -> BackfillJob:
    path = folder / "corpus.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)))
    return BackfillJob(open_source(str(path), None, None), endpoint, folder / "out", chunked=False)


def test_documents_duplicates_requests_and_minutes_are_counted(tmp_path: Path) -> None:
    sums = forecast(job(tmp_path, [f"text {n % 20}" for n in range(45)]))
    assert (sums.documents, sums.chunks, sums.duplicates, sums.requests) == (45, 45, 25, 2)
    assert sums.bound_by == "requests"
    assert sums.minutes == pytest.approx(2 / 60, rel=0.01)
    assert not (tmp_path / "out").exists()


def test_the_tighter_limit_bounds_the_time_and_the_price_is_by_token(tmp_path: Path) -> None:
    endpoint = replace(ENDPOINT, caps=Caps(inputs=100), rate_limit=RateLimit(600, 1000))
    sums = forecast(job(tmp_path, ["four" * 100 + str(n) for n in range(50)], endpoint), price=2.0)
    assert sums.tokens == pytest.approx(50 * 100, rel=0.02)
    assert sums.bound_by == "tokens"
    assert sums.minutes == pytest.approx(5.0, rel=0.03)
    assert sums.cost == pytest.approx(0.01, rel=0.02)


def test_what_would_be_refused_is_said_by_code(tmp_path: Path) -> None:
    sums = forecast(job(tmp_path, ["good", "", "  ", 7, None]))
    assert sum(sums.refused.values()) == 4
    assert sums.requests == 1


def test_without_a_limit_there_is_no_time_to_tell(tmp_path: Path) -> None:
    sums = forecast(job(tmp_path, ["one"], replace(ENDPOINT, rate_limit=RateLimit())))
    assert (sums.minutes, sums.bound_by, sums.cost) == (None, None, None)
