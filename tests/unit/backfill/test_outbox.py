"""How much may be outstanding, and what is sent again, against a world of plain values and a clock of our own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from penstock.config.errors import LaneParked
from penstock.tasks.backfill.dispatch import outbox as outbox_module
from penstock.tasks.backfill.dispatch.outbox import Outbox
from penstock.tasks.backfill.dispatch.publisher import NotSent
from penstock.tasks.backfill.dispatch.settle import Meaning
from penstock.tasks.backfill.dispatch.window import LEAST, MOST, MOST_BYTES, SendWindow
from penstock.tasks.backfill.ledger.ledger import Tally
from penstock.tasks.backfill.plan.batch import Batch, OutputRow
from penstock.workers.results.types import EmbedResult

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def batch(number: int = 0, which: Sequence[int] = (0, 1, 2)) -> Batch:
    texts = ["a", "b", "c"]
    output_rows = [OutputRow(row, f"id{row}", 0, 0, 1) for row in range(len(which))]
    return Batch(number, f"task{number}", texts, output_rows, list(which), 3, b"")


def test_the_window_is_bounded_by_count_and_by_bytes() -> None:
    window = SendWindow(batches=10, dimensions=1536)
    while window.has_room():
        window.sent(256, 20_000)
    assert window.outstanding == 10
    window = SendWindow(batches=1000, dimensions=3072)
    while window.has_room():
        window.sent(2048, 1_000_000)
    assert (window.outstanding - 1) * (2048 * 3072 * 4 + 1_000_000) < MOST_BYTES
    assert window.outstanding >= LEAST
    window.done(2048, 1_000_000)
    assert window.has_room()


def test_the_window_grows_only_while_workers_run_dry() -> None:
    window = SendWindow(batches=8)
    for _ in range(8):
        window.sent(1, 1)
    window.look(waiting=3)
    assert window.batches == 8
    window.look(waiting=0)
    assert window.batches == 12
    window.look(waiting=0)
    assert window.batches == 12  # it is not full
    for _ in range(10_000):
        window.sent(0, 0)
        window.look(waiting=0)
    assert window.batches == MOST


class World:
    """Broker, results and ledger of a test."""

    def __init__(self) -> None:
        self.queued: set[str] = set()
        self.results: dict[str, Any] = {}
        self.sent: list[int] = []
        self.marked: list[int] = []
        self.unsent: list[int] = []
        self.down = False

    # Post
    def send(self, batches: Sequence[Batch]) -> None:
        if self.down:
            raise NotSent("down")
        self.sent += [each.number for each in batches]
        self.queued |= {each.task_id for each in batches}

    # Results
    def count(self, task_ids: Sequence[str], queue_key: str) -> tuple[int, int]:
        return len(self.ready(task_ids)), len(self.queued)

    def ready(self, task_ids: Sequence[str]) -> set[str]:
        return set(task_ids) & self.results.keys()

    def fetch(self, task_ids: Sequence[str], count: int) -> Iterator[tuple[str, Any]]:
        for task_id in task_ids:
            if task_id in self.results:
                yield task_id, self.results[task_id]

    def forget(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self.results.pop(task_id, None)

    # Seeker
    def tasks(self) -> set[str]:
        return set(self.queued)

    # Ledger
    def mark_sent(self, numbers: Sequence[int]) -> None:
        self.marked += numbers

    def mark_unsent(self, number: int) -> None:
        self.unsent.append(number)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def outbox(world: World, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    any_world: Any = world
    return Outbox(any_world, any_world, any_world, any_world, "queue")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_batch_goes_out_once_and_comes_back_once(clock: Clock, world: World, outbox: Outbox) -> None:
    outbox.put(batch())
    outbox.flush()
    outbox.flush()
    assert (world.sent, world.marked, len(outbox)) == ([0], [0], 1)
    assert list(outbox.collect()) == []
    world.results["task0"] = EmbedResult(VECTORS)
    assert list(outbox.collect()) == [(batch(), world.results["task0"], Meaning.VERDICT)]
    assert len(outbox) == 0
    assert outbox.window.outstanding == 0


def test_what_an_earlier_run_left_is_sent_again_only_when_it_is_missing_twice(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    world.queued = {"task0"}
    world.results["task1"] = EmbedResult(VECTORS)
    outbox.recover([(batch(0), 1), (batch(1), 1), (batch(2), 1), (batch(3), 0)])
    assert outbox.seek(closed=False) == 0
    assert outbox.seek(closed=False) == 0  # too soon for the second look
    clock.now += outbox_module.TWICE_S
    assert outbox.seek(closed=False) == 2
    outbox.flush()
    assert world.sent == [2, 3]
    # The one that was sent before may have been billed; the other never left.
    assert outbox.take_billed_twice() == Tally(possibly_billed_twice=3)
    assert outbox.take_billed_twice() == Tally()
    clock.now += outbox_module.TWICE_S
    assert outbox.seek(closed=False) == 0


def test_a_message_that_turns_up_at_the_second_look_is_not_sent_again(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    outbox.recover([(batch(0), 1)])
    outbox.seek(closed=False)
    world.queued = {"task0"}
    clock.now += outbox_module.TWICE_S
    assert outbox.seek(closed=False) == 0
    outbox.flush()
    assert world.sent == []


def test_a_broker_that_did_not_answer_is_looked_into_before_anything_is_sent_again(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    outbox.put(batch(0))
    outbox.put(batch(1))
    world.down = True
    with pytest.raises(NotSent):
        outbox.flush()
    world.down = False
    world.queued = {"task1"}  # it had come through after all
    for _ in range(2):
        clock.now += outbox_module.TWICE_S
        outbox.seek(closed=False)
        outbox.flush()
    assert world.sent == [0]
    assert outbox.take_billed_twice() == Tally()


def test_silence_makes_the_outbox_look_but_not_while_the_lane_is_closed(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    outbox.put(batch(0))
    outbox.flush()
    world.queued = set()
    for _ in range(30):
        clock.now += 1
        assert outbox.seek(closed=True) == 0
    clock.now += outbox_module.QUIET_S + 1
    assert outbox.seek(closed=False) == 0
    clock.now += outbox_module.TWICE_S
    assert outbox.seek(closed=False) == 1


def test_a_parked_lanes_answer_is_dropped_and_the_batch_is_sent_again_at_no_cost(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    outbox.put(batch(0))
    outbox.flush()
    world.queued, world.results = set(), {"task0": LaneParked("parked")}
    assert len(list(outbox.collect())) == 1
    assert (world.results, world.unsent, len(outbox)) == ({}, [0], 1)
    for _ in range(2):
        clock.now += outbox_module.TWICE_S
        outbox.seek(closed=True)
    outbox.flush()
    assert world.sent == [0, 0]
    assert outbox.take_billed_twice() == Tally()


def test_a_worker_in_trouble_gets_the_batch_again_and_it_may_have_been_billed(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    outbox.put(batch(0))
    outbox.flush()
    world.queued, world.results = set(), {"task0": ConnectionResetError("the worker lost its broker")}
    assert len(list(outbox.collect())) == 1
    assert (world.results, world.unsent, len(outbox)) == ({}, [], 1)
    for _ in range(2):
        clock.now += outbox_module.TWICE_S
        outbox.seek(closed=False)
    assert outbox.take_billed_twice() == Tally(possibly_billed_twice=3)


def answered(clock: Clock, world: World, outbox: Outbox, **answers: Any) -> list[tuple[int, Meaning]]:
    """Have every batch that is out delivered and answered; tell what the answers meant, and send again."""
    world.queued, world.results = set(), dict(answers)
    found = [(each.number, what) for each, _, what in outbox.collect()]
    for _ in range(2):
        clock.now += outbox_module.TWICE_S
        outbox.seek(closed=False)
    outbox.flush()
    return found


def test_an_error_that_nobody_foresaw_is_held_against_a_batch_only_if_others_are_answered(
    clock: Clock, world: World, outbox: Outbox
) -> None:
    for number in range(3):
        outbox.put(batch(number))
    outbox.flush()
    defect = ValueError("a defect")
    for _ in range(5):  # all fail alike: it is not the texts
        found = answered(clock, world, outbox, task0=defect, task1=defect, task2=defect)
        assert found == [(0, Meaning.DEFECT), (1, Meaning.DEFECT), (2, Meaning.DEFECT)]
    fine = EmbedResult(VECTORS)
    assert answered(clock, world, outbox, task0=fine, task1=defect, task2=fine) == [
        (0, Meaning.VERDICT),
        (1, Meaning.VERDICT),
        (2, Meaning.VERDICT),
    ]
    assert len(outbox) == 0


def test_a_broker_that_cannot_be_looked_into_gets_again_what_never_left(
    clock: Clock, world: World, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "tasks", lambda: None)
    outbox.recover([(batch(0), 1), (batch(1), 0)])
    outbox.seek(closed=False)
    clock.now += outbox_module.TWICE_S
    assert outbox.seek(closed=False) == 1
    outbox.flush()
    assert world.sent == [1]
    clock.now += outbox_module.SILENT_S + 1
    outbox.seek(closed=False)
    clock.now += outbox_module.TWICE_S
    assert outbox.seek(closed=False) == 2
