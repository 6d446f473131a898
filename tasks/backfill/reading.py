"""What a run reads: the source from where the last run had come to, or of it what failed before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from penstock.config.errors import JobError
from penstock.tasks.backfill.ledger.ledger import Ledger
from penstock.tasks.backfill.plan.batch import DIGEST_BYTES, Plan, Position
from penstock.tasks.backfill.plan.chunker import Chunker
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.plan.planner import Planner, place_of
from penstock.tasks.backfill.plan.retry import FailedRows
from penstock.tasks.backfill.plan.seen import DEFAULT_TEXTS, Seen
from penstock.tasks.backfill.sources import Row, Source
from penstock.tasks.request.packing import budget_tokens


def read_on(job: BackfillJob, ledger: Ledger, starved: Callable[[], bool]) -> Iterator[Plan]:
    """Return the plans that the ledger does not have yet; they are made, in whatever thread, as they are taken.

    Args:
        job: what is read.
        ledger: says from where on, and whether it is a retry.
        starved: whether the lane waits for texts.
    """
    chunker = Chunker(job.chunking, starved)
    if ledger.retry:
        return _failed(job, ledger, chunker)
    position = ledger.position
    rows = _readable(job.source, position.skip, position.mark)
    return _planner(job, ledger, position).plans(chunker.cut(rows))


def _failed(job: BackfillJob, ledger: Ledger, chunker: Chunker) -> Iterator[Plan]:
    """Make plans of what failed. Where a row was left half way, its next chunk is known by the position."""
    failed, position = ledger.failed_rows(), ledger.position
    first = next(failed, None)
    if first is None or first.ordinal != position.skip:
        position = Position()
    # Standard input cannot be entered half way.
    skip = first.ordinal if first and job.source.fingerprint() is not None else 0
    rows = FailedRows(chain([first] if first else [], failed), ledger.failed_texts(), job.source.name)
    selected = rows.select(_readable(job.source, skip, 0))
    return _planner(job, ledger, position).plans(rows.restrict(iter(chunker.cut(selected))))


def _planner(job: BackfillJob, ledger: Ledger, position: Position) -> Planner:
    seen, endpoint = Seen(), job.endpoint
    for number, digests in ledger.digests(DEFAULT_TEXTS):
        for text in range(len(digests) // DIGEST_BYTES):
            seen.add(digests[DIGEST_BYTES * text : DIGEST_BYTES * (text + 1)], place_of(number, text))
    budget = budget_tokens(endpoint.rate_limit)
    return Planner(ledger.job, endpoint.caps, budget, seen, position, ledger.next_batch())


def _readable(source: Source, skip: int, mark: int) -> Iterator[Row]:
    try:
        yield from source.rows(skip, mark)
    except OSError as exc:
        raise JobError(
            f"{source.name} cannot be read any further: {exc.strerror or exc}. Fix that and run the same command "
            "again; it goes on where it was"
        ) from exc
