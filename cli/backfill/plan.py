"""``penstock plan``: what a backfill would take, before anything is paid."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli import output
from penstock.cli.backfill.run import CorpusSource, EndpointId, IdField, NoChunk, TextField
from penstock.cli.options import AsJson
from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.config.urls import state_url
from penstock.tasks.backfill.plan.forecast import Forecast, forecast
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.sources import open_source
from penstock.workers.embedded.broker import broker


def command(
    source: CorpusSource,
    endpoint: EndpointId,
    text_field: TextField = None,
    id_field: IdField = None,
    no_chunk: NoChunk = False,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="P", help="Price of a million tokens, for an estimate of the cost.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a corpus and say what a backfill of it would take. Nothing is sent and nothing is written.

    Documents, chunks, duplicates, tokens (estimated at 4 bytes each), requests, minutes at the lane's quota, and with
    --price the cost.
    """
    settings = load_settings()
    corpus = open_source(source, text_field, id_field)
    with broker(settings) as urls:
        target = Registry(connect(state_url(urls.broker, urls.results)), settings).get(endpoint)
    sums = forecast(BackfillJob(corpus, target, Path(), not no_chunk), price, _progress())
    if as_json:
        output.print_json(asdict(sums))
        return
    output.print_table(("what", "how much"), _rows(sums))


def _progress() -> Callable[[Forecast], None]:
    """Return a watcher that says every few seconds how far the reading is, on stderr."""
    shown = time.monotonic()

    def show(sums: Forecast) -> None:
        nonlocal shown
        if time.monotonic() - shown > 3:
            shown = time.monotonic()
            output.note(f"{sums.documents:,} documents, {sums.chunks:,} chunks read")

    return show


def _rows(sums: Forecast) -> list[tuple[str, str]]:
    rows = [
        ("documents", f"{sums.documents:,}"),
        ("chunks", f"{sums.chunks:,}"),
        ("duplicates", f"{sums.duplicates:,}, embedded once each"),
        ("tokens", f"about {sums.tokens:,}"),
        ("requests", f"{sums.requests:,}"),
        (
            "time",
            "no limit" if sums.minutes is None else f"{_minutes(sums.minutes)}, bound by {sums.bound_by} a minute",
        ),
    ]
    if sums.cost is not None:
        rows.append(("cost", f"about {sums.cost:,.2f}" if sums.cost >= 1 else f"about {sums.cost:.4f}"))
    if sums.repeated_ids:
        rows.append(("repeated ids", f"{sums.repeated_ids:,}"))
    return rows + [(f"refused: {code}", f"{count:,}") for code, count in sums.refused.most_common()]


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:,.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
