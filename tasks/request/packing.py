"""Packs texts into requests: pure, used by the ``embed`` task and by backfills alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstock.config.endpoints.endpoint import RateLimit
from penstock.config.endpoints.services import Caps
from penstock.workers.lanes.tokens import BYTES_PER_TOKEN

#: Share of the provider's cap of tokens a request that an estimate may fill.
HEADROOM = 0.8
#: A request takes at most this many seconds' worth of the tokens' quota, so that the sub-minute windows in which
#: providers enforce it are never asked for more than they hold.
BURST_S = 0.5
#: Texts whose estimate is beyond this multiple of the cap are refused without asking the server.
CERTAINLY_TOO_LONG = 4.0
#: Characters of a text, about, that one request should carry at most: bounds messages and memory.
REQUEST_BYTES = 4_000_000


def pack(
    sizes: Iterable[int], caps: Caps, budget_tokens: float | None = None, bytes_per_token: float = BYTES_PER_TOKEN
) -> Iterator[range]:
    """Split a sequence of texts into requests, in order, as few as the caps allow.

    Args:
        sizes: UTF-8 bytes of each text.
        caps: what a request may carry.
        budget_tokens: most tokens in a request for the lane's sake; a single text may exceed it.
        bytes_per_token: for the estimates.

    Yields:
        Ranges of positions: each position is in exactly one, and none is empty.
    """
    most_inputs = max(1, caps.inputs)
    limits = [caps.request_tokens * HEADROOM if caps.request_tokens else None, budget_tokens]
    most_bytes = min([REQUEST_BYTES, *(limit * bytes_per_token for limit in limits if limit)])
    start = end = 0
    filled = 0
    for size in sizes:
        suspicious = caps.input_tokens is not None and size / bytes_per_token > caps.input_tokens
        if end > start and (end - start >= most_inputs or filled + size > most_bytes or suspicious):
            yield range(start, end)
            start, filled = end, 0
        end += 1
        filled += size
        if suspicious:  # near or over the cap: alone, so that a refusal costs its neighbours nothing
            yield range(start, end)
            start, filled = end, 0
    if end > start:
        yield range(start, end)


def budget_tokens(limit: RateLimit) -> float | None:
    """Return the tokens that one request should take at most for its lane's sake, None without a limit of tokens.

    Half a second's worth of the quota, or more where the requests' limit is the tighter one: so many that the requests
    a minute still suffice for the tokens a minute, with a quarter to spare.
    """
    if not limit.tokens_per_minute:
        return None
    budget = limit.tokens_per_minute / 60 * BURST_S
    if limit.requests_per_minute:
        budget = max(budget, 1.25 * limit.tokens_per_minute / limit.requests_per_minute)
    return max(1.0, budget)


def certainly_too_long(size: int, caps: Caps) -> bool:
    """Whether a text of ``size`` UTF-8 bytes is so far over the cap of tokens an input that no tokenizer could bring it
    under it."""
    return caps.input_tokens is not None and size / BYTES_PER_TOKEN > CERTAINLY_TOO_LONG * caps.input_tokens
