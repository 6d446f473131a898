"""Messages that are nearly right, among sound ones: no worker dies, each is answered or kept, sound ones are served."""

from __future__ import annotations

import os
from itertools import islice
from typing import Any

from chaos.conftest import DIMENSIONS, SHORT_LEASES, Bench, calls
from penstock.workers.broker.message import read_id
from support.fuzzed import QUEUES, messages
from support.plant import PREFIX, Plant
from support.valkey import ValkeyServer
from support.waiting import wait_until

#: How many, and how many at a time: no more than the list of dead messages holds.
COUNT, AT_ONCE = int(os.environ.get("PENSTOCK_TEST_MESSAGES", "600")), 300


def test_messages_that_are_nearly_right_are_answered_or_kept(
    bench: Bench, valkey: ValkeyServer, stand_in: Any, worker: Any
) -> None:
    server = stand_in(latency_ms=5, dimensions=DIMENSIONS)
    for inference_id in ("docs", "calm"):
        bench.put_docs(inference_id, server, dimensions=DIMENSIONS, rate_limit={"requests_per_minute": None})
    workers = worker(2, app="support.feeder_app", args=("-c", "20"), **SHORT_LEASES)
    fuzzed = messages(COUNT, seed=9)
    with valkey.client() as client:
        plant = Plant(client)
        while batch := list(islice(fuzzed, AT_ONCE)):
            sound = calls(60)
            ids: list[str] = []
            for n, (queue, raw) in enumerate(batch):
                plant.push(raw, queue)
                if n % 10 == 0:
                    ids += bench.publish(("docs", "calm")[n % 20 == 0], [sound[n // 10]], "interactive")
            bench.collect(ids)
            missing = dict.fromkeys(raw for _, raw in batch)

            def all_ended(missing: dict[bytes, None] = missing) -> bool:
                dead = {each.raw for each in plant.dead(*QUEUES)}
                for raw in [*missing]:
                    if raw in dead or answered(plant, raw):
                        del missing[raw]
                return not missing

            try:
                wait_until(all_ended, "each is answered or kept", 60, every=0.5)
            finally:
                print(f"{len(missing)} not accounted for, such as", *list(missing)[:5], sep="\n")
            assert [each.running for each in workers] == [True, True], workers[0].log[-3000:] + workers[1].log[-3000:]
            client.delete(f"{PREFIX}dead-messages")
        wait_until(lambda: not client.exists(f"{PREFIX}unacked", f"{PREFIX}penstock"), "nothing is left", 30)
        plant.close()


def answered(plant: Plant, raw: bytes) -> bool:
    """Whether the task of a message has an outcome."""
    task_id = read_id(raw)
    return task_id is not None and plant.answered(task_id)
