"""The run dies at every step of its protocol, and the next one goes on: no row lost, none twice, none paid twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backfills import DYING, ENDPOINT, SMALL_SHARDS, Deployment, Rig, deployed, numbered, whole
from support.processes import Child

# Dying after a step is dying before the next one.
STEPS = [
    ("ledger.ledger:Ledger.begin", 1, "before"),
    ("ledger.ledger:Ledger.begin", 1, "after"),
    ("ledger.ledger:Ledger.record", 1, "after"),
    ("ledger.ledger:Ledger.record", 3, "after"),
    ("dispatch.publisher:BatchPublisher.send", 1, "after"),
    ("dispatch.publisher:BatchPublisher.send", 3, "before"),
    ("ledger.ledger:Ledger.mark_sent", 2, "after"),
    ("ledger.ledger:Ledger.set_dimensions", 1, "after"),
    ("targets.parquet:Sink.close", 2, "before"),
    ("targets.parquet:Sink.close", 2, "after"),
    ("ledger.ledger:Ledger.seal", 2, "after"),
    ("targets.writer:publish", 1, "after"),
    ("dispatch.results:Results.forget", 2, "after"),
    ("targets.writer:Writer.settle_duplicates", 1, "after"),
    ("ledger.folder:OutputFolder.write_report", 1, "after"),
    ("ledger.ledger:Ledger.finish", 1, "after"),
]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with deployed(poison={"ZZPOISON": "content-filter"}) as made:
        yield made


@pytest.fixture
def rig(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = deployment.rig(tmp_path, monkeypatch, max_inputs_per_request=8)
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("step", "nth", "when"), STEPS, ids=[f"{when}-{step.split(':')[1]}-{nth}" for step, nth, when in STEPS]
)
def test_a_run_that_dies_at_this_step_goes_on(rig: Rig, deployment: Deployment, step: str, nth: int, when: str) -> None:
    rows = numbered(400, f"dies {when} {step} {nth}")
    twins = [{"id": f"twin{n}", "text": rows[n]["text"]} for n in range(0, 400, 9)]
    poison = [{"id": f"p{n}", "text": f"ZZPOISON {step} {nth} {when}"} for n in range(2)]
    corpus = rig.corpus([*rows[:200], b"{bad", poison[0], *rows[200:], *twins, poison[1]])
    command = ["backfill", str(corpus), "-e", ENDPOINT, "-o", str(rig.out), "--no-chunk"]
    dying = Child(
        [sys.executable, "-c", SMALL_SHARDS + DYING, step, str(nth), when, *command],
        rig.folder / "dying.log",
        cwd=rig.folder,
    )
    rig.started.append(dying)
    assert dying.wait(60) == 9, dying.log
    before = deployment.stand_in.stats()["texts_billed_more_than_once"]
    rig.run(corpus, "--no-chunk", expect=1)
    rig.check(whole([*rows, *twins]))
    assert sorted((letter["id"] or "", letter["code"]) for letter in rig.failed()) == [
        ("", "invalid_json"),
        ("p0", "content_filter"),
        ("p1", "content_filter"),
    ]
    report = rig.report()
    assert (report["documents"], report["chunks"]) == (len(rows) + len(twins) + 3, len(rows) + len(twins) + 2)
    assert (report["embedded"], report["failed"]) == (len(rows) + len(twins), 3)
    assert deployment.stand_in.stats()["texts_billed_more_than_once"] == before
    assert not list((rig.out / ".penstock").glob("part-*"))
    assert deployment.results_left() == []
