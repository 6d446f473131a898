"""A dry run: what a backfill would send, by the same reading, cutting and packing, and nothing sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from penstock.config.endpoints.endpoint import Endpoint
from penstock.tasks.backfill.plan.batch import Plan, Position
from penstock.tasks.backfill.plan.chunker import Chunker
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.plan.planner import Planner
from penstock.tasks.backfill.plan.seen import Seen
from penstock.tasks.request.packing import budget_tokens
from penstock.workers.lanes.limiter import PACE
from penstock.workers.lanes.tokens import BYTES_PER_TOKEN


@dataclass
class Forecast:
    """What a backfill would take.

    Args:
        documents, chunks: in the corpus; rows that cannot be used are documents.
        duplicates: chunks whose text another chunk has: they are embedded once.
        refused: dead letters before anything is sent, by code.
        repeated_ids: documents whose id an earlier one has.
        requests: HTTP requests, when none must be repeated.
        tokens: estimated from bytes, at 4 a token.
        minutes: at the lane's quota, None when it has no limit.
        bound_by: ``requests`` or ``tokens``, whichever limit is the tighter one; None when there is none.
        cost: tokens at the price given, None without one.
    """

    documents: int = 0
    chunks: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    repeated_ids: int = 0
    requests: int = 0
    tokens: int = 0
    minutes: float | None = None
    bound_by: str | None = None
    cost: float | None = None


def forecast(
    job: BackfillJob, price: float | None = None, watch: Callable[[Forecast], None] = lambda so_far: None
) -> Forecast:
    """Read the whole corpus and say what embedding it would take.

    Args:
        job: the backfill to be; its output folder is not touched.
        price: of a million tokens, in whatever currency.
        watch: is shown the sums now and then.
    """
    endpoint, sums, size = job.endpoint, Forecast(), 0
    planner = Planner(UUID(int=0), endpoint.caps, budget_tokens(endpoint.rate_limit), Seen(), Position(), 0)
    chunker = Chunker(job.chunking, starved=lambda: True)
    for plan in planner.plans(chunker.cut(job.source.rows())):
        size += _add(sums, plan)
        sums.tokens = round(size / BYTES_PER_TOKEN)
        watch(sums)
    sums.minutes, sums.bound_by = _duration(endpoint, sums)
    sums.cost = None if price is None else sums.tokens / 1e6 * price
    return sums


def _add(sums: Forecast, plan: Plan) -> int:
    """Add a plan; return the bytes that it would send."""
    sums.documents += plan.documents
    sums.chunks += plan.chunks
    sums.repeated_ids += plan.repeated_ids
    sums.duplicates += len(plan.duplicates)
    sums.refused.update(letter.code for letter in plan.dead)
    if plan.batch is None:
        return 0
    sums.requests += 1
    sums.duplicates += len(plan.batch.output_rows) - len(plan.batch.texts)
    return plan.batch.size


def _duration(endpoint: Endpoint, sums: Forecast) -> tuple[float | None, str | None]:
    limit = endpoint.rate_limit
    times = {
        "requests": sums.requests / (limit.requests_per_minute * PACE) if limit.requests_per_minute else None,
        "tokens": sums.tokens / (limit.tokens_per_minute * PACE) if limit.tokens_per_minute else None,
    }
    known = {name: time for name, time in times.items() if time is not None}
    if not known:
        return None, None
    bound = max(known, key=lambda name: known[name])
    return known[bound], bound
