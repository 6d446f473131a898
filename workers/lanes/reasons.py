"""Which limit a refusal was about, and why a lane is parked: read from outcomes. Pure."""

from __future__ import annotations

from penstock.config.endpoints.endpoint import Endpoint
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.lanes.signals import Dimension

#: Codes of refusals for a server's own state, whatever our pace.
CAPACITY = frozenset({"capacity", "model_not_ready"})


def parking_reason(endpoint: Endpoint, outcome: Outcome) -> str:
    """Say why a lane is parked, and what to do next."""
    remedy = {
        OutcomeKind.QUOTA_EXHAUSTED: "add credit or raise the spending limit at the provider",
        OutcomeKind.UNAUTHORIZED: "put the endpoint again with a valid key",
        OutcomeKind.NOT_FOUND: "correct the endpoint's model, deployment or URL",
    }.get(outcome.kind, "wait, or ask the provider why")
    status = f" (HTTP {outcome.status})" if outcome.status else ""
    words = f": {outcome.message}" if outcome.message else ""
    return (
        f"{outcome.code or outcome.kind.value}{status}{words}. Next: {remedy}, "
        f"then `penstock lane resume {endpoint.inference_id}`"
    )


def dimension(outcome: Outcome) -> Dimension:
    """Return which limit a 429 was about, "" where nothing tells."""
    limits, words = outcome.limits, f"{outcome.code} {outcome.message}".lower()
    if outcome.code in CAPACITY:
        return "capacity"
    if limits.remaining_tokens == 0 and limits.remaining_requests:
        return "tokens"
    if limits.remaining_requests == 0 and limits.remaining_tokens:
        return "requests"
    if "token" in words:
        return "tokens"
    return "requests" if "request" in words and "rate" in words else ""
