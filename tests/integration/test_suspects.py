"""Messages that kill their workers, and their neighbours, through real workers that are started again as they die."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.config.errors import MessageKillsWorkers
from penstock.config.names import suspects_queue
from support.plant import QUEUE, Plant
from support.worker import Worker

LEASES = {"PENSTOCK_VISIBILITY_TIMEOUT_S": "1.5", "PENSTOCK_HEARTBEAT_S": "0.4"}
StartWorkers = Callable[..., list[Worker]]


class Supervised:
    """Workers of which another is started for each that dies."""

    def __init__(self, start: StartWorkers, n: int) -> None:
        self._start, self.deaths, self._ending = start, 0, threading.Event()
        self.workers = [self._new() for _ in range(n)]
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _new(self) -> Worker:
        (worker,) = self._start(1, app="support.feeder_app", args=("-c", "8"), **LEASES)
        return worker

    def _watch(self) -> None:
        while not self._ending.wait(0.1):
            for n, worker in enumerate(self.workers):
                if not worker.running:
                    self.deaths += 1
                    self.workers[n] = self._new()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.fixture
def supervised(worker: StartWorkers) -> Iterator[Callable[[int], Supervised]]:
    made: list[Supervised] = []

    def start(n: int) -> Supervised:
        made.append(Supervised(worker, n))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def beside(plant: Plant, task_id: str) -> list[int]:
    found: Any = plant.client.lrange(f"tests:beside:{task_id}", 0, -1)
    return [int(each) for each in found]


def test_a_message_that_kills_its_workers_is_set_apart_and_costs_no_neighbour(
    plant: Plant, supervised: Callable[[int], Supervised]
) -> None:
    workers = supervised(2)
    killer = plant.send("tests.work", 0.3, True)
    neighbours = [plant.send("tests.work", 1.0) for _ in range(12)]
    others = []

    def ended() -> bool:
        others.append(plant.send("tests.work"))  # ordinary work all the while
        return killer.ready()

    plant.wait(ended, "the message that kills is set apart", 120)
    error = killer.get(propagate=False)
    assert isinstance(error, MessageKillsWorkers)
    assert f"penstock lane dead {QUEUE}" in str(error)
    assert [each.get(timeout=60) for each in neighbours] == [1] * 12
    assert [each.get(timeout=60) for each in others] == [1] * len(others)
    assert beside(plant, killer.id)[2:] == [0, 0, 0], "twice among others, then three times alone"
    assert workers.deaths == 5
    (dead,) = plant.dead()
    assert (dead.task_id, dead.queue) == (killer.id, QUEUE)
    plant.wait(plant.at_rest, "no lease is left")
    assert not plant.client.exists(f"penstock:{suspects_queue(QUEUE)}")


def test_what_is_in_flight_at_deaths_by_chance_is_run_alone_and_done(
    plant: Plant, supervised: Callable[[int], Supervised]
) -> None:
    workers = supervised(1)
    sent = [plant.send("tests.work", 2.0) for _ in range(3)]
    for deaths in (1, 2):
        plant.wait(lambda n=deaths: len(plant.in_flight()) == 3 and workers.deaths == n - 1, "all are in flight", 30)
        plant.wait(lambda n=deaths: set(plant.counts("begun").values()) == {n}, "all run", 30)
        workers.workers[0].kill()
        plant.wait(lambda n=deaths: workers.deaths == n, "another is started", 30)
    assert [each.get(timeout=60) for each in sent] == [1] * 3
    assert [beside(plant, each.id)[-1] for each in sent] == [0] * 3, "each was alone in its process"
    assert plant.dead() == []
    plant.wait(plant.at_rest, "no lease is left")
