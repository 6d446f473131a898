"""All that a server can do wrong, at once: every good text ends with its right vector, every bad one is told why."""

from __future__ import annotations

from typing import Any

import numpy as np

from chaos.conftest import DIMENSIONS, SHORT_LEASES, Bench, calls
from penstock.stand_in.vectors import vector
from penstock.workers.results.types import EmbedResult
from support.waiting import wait_until

#: By request, whatever is in it: it passes when the request is made again.
PASSING = {
    "500": 0.015, "503": 0.015, "reset-before": 0.01, "reset-after": 0.01, "stall": 0.01, "malformed": 0.01,
    "truncated": 0.01, "short": 0.01, "wrong-dimension": 0.01, "nan": 0.01, "shuffled": 0.02, "error-200": 0.01,
    "html-200": 0.01, "empty-200": 0.01,
}  # fmt: skip
#: By text: it never passes.
BAD = {
    "[[content-filter]]": "content_filter",
    "[[too-long]]": "input_too_long",
    "[[500]]": "server_error",
    "[[nan]]": "not_finite",
    "": "empty_text",
}


def test_under_all_faults_at_once_every_text_comes_to_its_right_end(bench: Bench, stand_in: Any, worker: Any) -> None:
    server = stand_in(latency_ms=20, dimensions=DIMENSIONS, fault=PASSING, stall_s=20, seed=1)
    limits = {"requests_per_minute": 6000}
    bench.put_docs("docs", server, timeout_s=1.0, dimensions=DIMENSIONS, rate_limit=limits)
    worker(2, args=("-c", "30"), PENSTOCK_RETRY_ATTEMPTS="6", **SHORT_LEASES)
    wanted = calls(400, 4)
    marks = list(BAD)
    for n in range(0, 400, 40):  # every fortieth call has a bad text among its good ones
        mark = marks[n // 40 % len(marks)]
        wanted[n][n // 40 % 4] = f"text {n} {mark}" if mark else "  "
    ids: list[str] = []

    def finish(some: list[list[str]]) -> None:
        ids.extend(bench.publish("docs", some))
        wait_until(lambda: bench.done(ids) == len(ids), "all results", 90, every=0.2)

    finish(wanted)
    for n in range(10):  # small calls share requests: chance may have spared a kind in the few requests that it took
        if set(server.stats()["faults"]) >= set(PASSING):
            break
        wanted += (more := calls(100, 4, name=f"more {n}"))
        finish(more)

    results = [bench.app.backend.get_task_meta(each)["result"] for each in ids]
    found = {code for texts, result in zip(wanted, results, strict=True) for code in check(texts, result)}
    assert found == set(BAD.values()), "every kind of bad text was there"
    stats = server.stats()
    assert set(stats["faults"]) >= set(PASSING), "every kind of fault happened"
    counted = sum(result.effort.possibly_billed_twice for result in results)
    assert stats["billed_again"] <= counted, "what was paid twice is counted"
    with bench.app.backend.client.pipeline() as pipe:
        pipe.exists("penstock:unacked_index", "penstock:unacked", "penstock:in-flight", "penstock:penstock.docs.bulk")
        assert pipe.execute() == [0], "nothing is left behind"


def check(texts: list[str], result: EmbedResult) -> list[str]:
    """Check that each text has a row or a failure, and the right one. Returns the failures' codes."""
    failures = {failure.index: failure for failure in result.failures}
    assert len(failures) == len(result.failures), "none failed twice"
    assert result.vectors.shape == (len(texts), DIMENSIONS)
    for n, text in enumerate(texts):
        mark = next((mark for mark in BAD if mark and mark in text), None if text.strip() else "")
        if mark is None:
            assert n not in failures, failures[n]
            assert np.array_equal(result.vectors[n], vector(text, DIMENSIONS)), f"a wrong vector for {text!r}"
        else:
            assert not np.isfinite(result.vectors[n]).any()
            assert (failures[n].code, bool(failures[n].message)) == (BAD[mark], True)
    return [failure.code for failure in result.failures]
