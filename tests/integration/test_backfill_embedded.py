"""Backfills on a machine with nothing but Penstock: its own broker and workers, which end with the command."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import broker
from support.backfills import Rig, numbered, whole
from support.stand_in import StandIn
from support.waiting import wait_until


@pytest.fixture
def rig(folder: Path, home: Path, stand_in: Callable[..., StandIn]) -> Iterator[Rig]:
    made = Rig(folder, stand_in(latency_ms=150, dimensions=32))
    with broker(load_settings()) as urls:
        made.put(urls.broker, max_inputs_per_request=8)
    yield made
    made.stop()


def served(rig: Rig) -> int:
    assert rig.stand_in is not None
    return int(rig.stand_in.stats()["served"])


def left_running(home: Path) -> list[str]:
    """Command lines of processes that have this home in their environment or arguments, ours not counted."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            said = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            if str(home).encode() in said and int(path.name) != os.getpid():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if "stand_in" not in line]


def test_one_command_starts_what_it_needs_and_ends_it(rig: Rig, home: Path) -> None:
    rows = numbered(200)
    rig.run(rig.corpus(rows), "--no-chunk", "--processes", "2")
    rig.check(whole(rows))
    wait_until(lambda: not left_running(home), "nothing of the run is left", 20)


def test_an_interrupted_run_finishes_what_it_has_sent_and_pays_nothing_twice(rig: Rig, home: Path) -> None:
    rows = numbered(1600)
    corpus = rig.corpus(rows)
    child = rig.start(corpus, "--no-chunk", "--processes", "1", env={"PENSTOCK_CONCURRENCY": "4"})
    wait_until(lambda: served(rig) >= 8, "some requests served", 30)
    child.send(signal.SIGINT)
    assert child.wait(40) == 130
    assert "Run the same command again to go on" in child.log
    assert served(rig) < 200
    wait_until(lambda: not left_running(home), "nothing of the run is left", 20)
    rig.run(corpus, "--no-chunk")
    rig.check(whole(rows))
    assert rig.stand_in is not None
    assert rig.stand_in.stats()["billed_again"] == 0
    assert rig.report()["possibly_billed_twice"] == 0


def test_a_run_killed_with_its_workers_and_broker_goes_on(rig: Rig, home: Path) -> None:
    rows = numbered(800)
    corpus = rig.corpus(rows)
    fast = {"PENSTOCK_CONCURRENCY": "4", "PENSTOCK_HEARTBEAT_S": "0.5", "PENSTOCK_VISIBILITY_TIMEOUT_S": "2"}
    child = rig.start(corpus, "--no-chunk", "--processes", "1", env=fast)
    wait_until(lambda: served(rig) >= 12, "some requests served", 30)
    child.kill()
    wait_until(lambda: not left_running(home), "workers and broker end with it", 30)
    rig.run(corpus, "--no-chunk", env=fast)
    rig.check(whole(rows))
    assert rig.stand_in is not None
    assert rig.stand_in.stats()["billed_again"] <= rig.report()["possibly_billed_twice"] <= 4 * 8
