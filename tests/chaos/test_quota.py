"""Real workers, real time: the whole quota and next to no refusal. The figures are the stand-in's own.

How fast a machine is has no part in it: a machine too slow for these few requests a second would be told as such by
the margins, which are wide; exact figures are for ``benchmarks/lanes.py``, and virtual time for the integration tests.
"""

from __future__ import annotations

from typing import Any

from chaos.conftest import DIMENSIONS, SHORT_LEASES, Bench, calls
from support.stand_in import StandIn
from support.waiting import wait_until

SECONDS = 15


def most_served_in(stats: dict[str, Any], seconds: int) -> int:
    """Most requests served in so many seconds of the stand-in's timeline."""
    served = {second: count for second, count, *_ in stats["timeline"]}
    return max(sum(served.get(first + n, 0) for n in range(seconds)) for first in served)


def test_two_workers_use_the_quotas_of_several_lanes_and_are_next_to_never_refused(
    bench: Bench, stand_in: Any, worker: Any
) -> None:
    requests: StandIn = stand_in(dimensions=DIMENSIONS, rpm=600, window="bucket-1s", latency_ms=50)
    shared: StandIn = stand_in(dimensions=DIMENSIONS, rpm=300, window="sliding-10s", latency_ms=50)
    tokens: StandIn = stand_in(dimensions=DIMENSIONS, tpm=12_000, window="bucket-1s", latency_ms=50)
    bench.put_docs("requests", requests, model="requests", rate_limit={"requests_per_minute": 600})
    for name in ("one", "two"):  # two endpoints of one account and model
        bench.put_docs(name, shared, model="shared", rate_limit={"requests_per_minute": 300})
    limit = {"requests_per_minute": None, "tokens_per_minute": 12_000}
    bench.put_docs("tokens", tokens, model="tokens", rate_limit=limit)
    worker(2, args=("-c", "40"), **SHORT_LEASES)

    bench.publish("requests", calls(10 * SECONDS + 50, name="request"))
    for name in ("one", "two"):
        bench.publish(name, calls(5 * SECONDS, name=name))
    uneven = [[f"{name} " + "some words " * (n % 9)] for n, (name,) in enumerate(calls(1000, name="token"))]
    bench.publish("tokens", uneven)
    servers = (requests, shared, tokens)
    wait_until(lambda: all(server.stats()["served"] for server in servers), "all lanes run", 30)
    wait_until(lambda: requests.stats()["served"] >= 10 * SECONDS, "a quota's worth of requests", 60, every=0.5)

    uses = []
    for server, kind in ((requests, "requests_use"), (shared, "requests_use"), (tokens, "tokens_use")):
        stats = server.stats()
        uses.append(stats["steady_minute"][kind])
        assert stats["statuses"].get("429", 0) <= 2, stats["refusals"]
    # How much of a quota two workers use is measured by the benchmarks, and in virtual time; here it is that no lane
    # has much less than another, however slow the machine.
    assert min(uses) >= 0.5 * max(uses), uses
    assert most_served_in(shared.stats(), 10) <= 50 + 5, "two endpoints of one quota do not exceed it together"
    assert requests.stats()["billed_again"] == shared.stats()["billed_again"] == 0
