"""Lets a scenario happen, in virtual time: the broker, the workers, the provider, who publishes, what goes wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import redis
from pydantic import SecretStr

from penstock.config.endpoints.registry import Registry
from penstock.config.names import EMBED_TASK, queue_key, queue_name
from penstock.config.settings import Settings
from penstock.tasks.services.base import Request
from penstock.workers.broker.bells import ring
from penstock.workers.lanes.limiter import change_lane
from support.virtual_time import START_S, VirtualLoop

from .broker import BlockingClient, Broker, Link, Step
from .invariants import FORGIVEN_S, INVARIANTS, Invariant
from .journal import Journal, TaskRecord, Violation
from .provider import BAD, Provider
from .scenario import MOST_CALLS, Fault, Scenario
from .worker import Worker, simulated_processes

ENDPOINT = "docs"
PREFIX = "sim:"
HEARTBEAT_S, VISIBILITY_S = 1.0, 4.0
#: Seconds that the work has to end in, when troubles and publishing are over.
END_S = 400.0


class World:
    """One seed.

    Args:
        client: of an empty server.
        scenario: what happens.
    """

    def __init__(self, client: redis.Redis, scenario: Scenario) -> None:
        self.scenario, self.journal = scenario, Journal()
        self.broker = Broker(client, PREFIX, ENDPOINT, MOST_CALLS)
        self._chance = random.Random(f"{scenario.seed} network")
        self.provider = Provider(scenario, self.journal, random.Random(f"{scenario.seed} provider"))
        self.outside = Link(self.broker)
        self.settings = Settings(
            broker_url=SecretStr("redis://simulated"), key_prefix=PREFIX, secret_key=SecretStr("simulated secret key"),
            heartbeat_s=HEARTBEAT_S, visibility_timeout_s=VISIBILITY_S, concurrency=scenario.concurrency,
        )  # fmt: skip
        self.workers: list[Worker] = []
        self.lapses = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._failed: asyncio.Future[None] | None = None
        self.invariants = [kind(self) for kind in INVARIANTS]
        self.broker.on_step += [self._book, lambda step: self._ask(lambda each: each.on_step(step))]
        self.broker.on_messages.append(lambda: self._ask(lambda each: each.on_messages()))

    # What invariants ask ------------------------------------------------------------------------------

    def troubled(self, process: str) -> bool:
        """Whether a process is dead, or was frozen or cut off of late."""
        link = next(each.link for each in self.workers if each.name == process)
        return link.dead or asyncio.get_running_loop().time() - link.trouble_at < FORGIVEN_S

    def died(self, process: str) -> bool:
        """Whether a process is dead."""
        return process == self.outside.name or next(each.link.dead for each in self.workers if each.name == process)

    def workers_up(self) -> bool:
        """Whether a worker runs and reaches the broker."""
        return any(not (each.link.dead or each.link.frozen or each.link.cut) for each in self.workers)

    # Running ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let it all happen. Raises Violation."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        loop.set_exception_handler(self._on_exception)
        self._put_endpoint()
        for _ in range(self.scenario.workers):
            self._start_worker()
        for fault in self.scenario.faults:
            self._spawn(self._happen(fault))
        self._spawn(self._publish_all())
        self._spawn(self._watch())
        end = asyncio.ensure_future(self._end())
        await asyncio.wait({end, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            end.cancel()
            self._failed.result()
        end.result()

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.scenario.seconds)
        last = START_S + self.scenario.seconds + max((each.seconds for each in self.scenario.faults), default=0) + END_S
        while self.journal.open_tasks or self.broker.messages or loop.time() < self._quiet_at:
            if self.broker.spent:
                return  # long enough: what held until now is what this seed can say
            if loop.time() > last:
                break
            await asyncio.sleep(0.25)
        await asyncio.sleep(2.0)  # what was learnt is told, answers to nobody arrive
        for each in self.invariants:
            each.at_end()

    @property
    def _quiet_at(self) -> float:
        return START_S + max((fault.at_s + fault.seconds for fault in self.scenario.faults), default=0.0)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._ask(lambda each: each.on_second())

    def _ask(self, question: Callable[[Invariant], None]) -> None:
        """Ask every invariant. What does not hold ends the seed, whoever would catch an error where it was seen."""
        try:
            for each in self.invariants:
                question(each)
        except Exception as exc:
            self._fail(exc)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if not isinstance(exc, redis.ConnectionError):  # nobody asked any more
            self._fail(exc)

    def _fail(self, exc: BaseException | None) -> None:
        if self._failed is not None and not self._failed.done() and exc is not None:
            self._failed.set_exception(exc)

    # The cast -----------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        link = Link(self.broker, self.scenario.rtt_s, self._chance)
        name = f"w{len(self.workers)}"
        link.on_doubt = self._doubt
        made = Worker(
            name,
            link,
            self.settings,
            self.provider,
            self.journal,
            self.scenario.concurrency,
            self._on_send,
            self._on_begin,
        )
        self.workers.append(made)
        self._spawn(made.run())

    def _registry(self) -> Registry:
        return Registry(BlockingClient(self.outside), self.settings)  # type: ignore[arg-type]

    def _put_endpoint(self) -> None:
        shape = self.scenario.provider
        limit = {
            "requests_per_minute": self.scenario.limit(shape.rpm), "tokens_per_minute": self.scenario.limit(shape.tpm)
        }  # fmt: skip
        settings: dict[str, Any] = {
            "model_id": "sim",
            "api_key": "k",
            "url": "http://sim/v1/embeddings",
            "rate_limit": limit,
        }
        if shape.inputs is not None:
            settings["max_inputs_per_request"] = shape.inputs
        put = self._registry().put("text_embedding", ENDPOINT, {"service": "openai", "service_settings": settings})
        self.quota = put.quota

    async def _publish_all(self) -> None:
        loop = asyncio.get_running_loop()
        for number, (kind, at_s, sizes, bad) in enumerate(self.scenario.tasks):
            await asyncio.sleep(max(0.0, START_S + at_s - loop.time()))
            texts = [f"{BAD if n in bad else 'text'} {number}.{n} ".ljust(size, "x") for n, size in enumerate(sizes)]
            self._publish(TaskRecord(f"t{number}", kind, texts, bad, loop.time()))
        self.published = True

    def _publish(self, task: TaskRecord) -> None:
        """Publish as kombu's Redis transport does, and ring."""
        queue = queue_name(ENDPOINT, task.kind)  # type: ignore[arg-type]
        body = json.dumps([[task.texts, ENDPOINT], {}, {}]).encode()
        message = {
            "body": base64.b64encode(body).decode(), "content-encoding": "utf-8", "content-type": "application/json",
            "headers": {"task": EMBED_TASK, "id": task.id},
            "properties": {
                "correlation_id": task.id, "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": queue}, "delivery_tag": f"published-{task.id}",
            },
        }  # fmt: skip
        self.journal.tasks[task.id] = task
        self.journal.task_of.update(dict.fromkeys(task.texts, task.id))
        self.journal.published += 1
        client: Any = BlockingClient(self.outside)
        client.lpush(queue_key(PREFIX, queue), json.dumps(message))
        ring(client, PREFIX, [queue])

    # What is written down -----------------------------------------------------------------------------

    def _on_send(self, link: Link, request: Request) -> None:
        texts: list[str] = json.loads(request.body)["input"]
        tasks = [self.journal.tasks[each] for each in dict.fromkeys(self.journal.task_of[text] for text in texts)]
        self.journal.requests += 1
        self.journal.of(link.name).sent += 1
        now = asyncio.get_running_loop().time()
        self.journal.note(now - START_S, f"{link.name} sends {len(texts)} texts of {[task.id for task in tasks]}")
        self._ask(lambda each: each.on_send(link.name, tasks, texts))
        for task in tasks:
            task.first_sent_at = task.first_sent_at or now

    def _on_begin(self, process: str, task: TaskRecord) -> None:
        self._ask(lambda each: each.on_begin(process, task))

    def _book(self, step: Step) -> None:
        at_s = asyncio.get_running_loop().time() - START_S
        if step.script == "broker/take":
            rows = step.answer[1:]
            for tag, _, raw in zip(*[iter(rows)] * 3, strict=True):
                task_id = json.loads(raw)["headers"]["id"]
                self.journal.leases[tag.decode()] = (task_id, step.link.name)
                self.journal.note(at_s, f"{step.link.name} takes {task_id}")
        elif step.script.startswith("lanes/"):
            books = self.journal.of(step.link.name)
            books.given_back += step.argument("usage.places")
            books.told_good += step.argument("usage.ok")
            if step.operation == "reserve":
                books.granted += step.answer[0] == 1
            elif step.operation not in ("report", "look"):
                self.journal.note(at_s, f"{step.link.name}: {step.operation} {step.before} -> {step.after}")
        elif step.script == "broker/restore":
            again = [self.journal.leases[str(tag)][0] for tag in step.args[1::3]]
            self.journal.note(at_s, f"{step.link.name} puts {again} back: {step.answer}")

    def _doubt(self, step: Step) -> None:
        if step.script.startswith("lanes/"):
            granted = step.operation == "reserve" and step.answer[0] == 1
            self.journal.of(step.link.name).doubtful += (
                granted + step.argument("usage.places") + step.argument("usage.ok")
            )

    # What goes wrong ----------------------------------------------------------------------------------

    async def _happen(self, fault: Fault) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(fault.at_s)
        self.journal.note(loop.time() - START_S, f"{fault.kind}: {fault}")
        action = getattr(self, f"_{fault.kind}", None)
        if action is not None:
            await action(fault)
            return
        self.provider.troubles.append(fault)
        await asyncio.sleep(fault.seconds)
        self.provider.troubles.remove(fault)

    async def _death(self, fault: Fault) -> None:
        self.workers[fault.worker].link.die()
        await asyncio.sleep(fault.seconds)
        self._start_worker()

    async def _freeze(self, fault: Fault) -> None:
        self.workers[fault.worker].link.freeze_for(fault.seconds)

    async def _cut(self, fault: Fault) -> None:
        self.workers[fault.worker].link.cut_for(fault.seconds)

    async def _clock_step(self, fault: Fault) -> None:
        self.broker.offset_ms += fault.amount * 1000
        self.journal.stepped_at = asyncio.get_running_loop().time()

    async def _pause(self, fault: Fault) -> None:
        self._change("paused", "by hand")
        await asyncio.sleep(fault.seconds)
        self._change("resume")

    async def _bad_key(self, fault: Fault) -> None:
        self.provider.troubles.append(fault)
        if fault.amount == 1.0:  # too early
            await asyncio.sleep(fault.seconds / 2)
            self._change("resume")
            await asyncio.sleep(fault.seconds / 2)
        else:
            await asyncio.sleep(fault.seconds)
        self.provider.troubles.remove(fault)
        await asyncio.sleep(0.5)
        if fault.amount == 2.0:
            self._put_endpoint()
            await asyncio.sleep(3)
        self._change("resume")
        await asyncio.sleep(3)  # what was refused at the last moment may have parked it again
        self._change("resume")

    def _change(self, change: Any, why: str = "") -> None:
        client: Any = BlockingClient(self.outside)
        change_lane(client, PREFIX, self.quota, change, why)


def run(client: redis.Redis, scenario: Scenario) -> World:
    """Run a seed. Raises Violation, with what led to it."""
    client.flushall()
    random.seed(scenario.seed)  # jitter of the shipped code
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, contextlib.ExitStack() as stack:
        loop = runner.get_loop()
        for name in ("monotonic", "perf_counter"):
            stack.enter_context(patch(f"time.{name}", loop.time))
        stack.enter_context(patch("time.time", lambda: loop.time() + 1.7e9))
        stack.enter_context(simulated_processes())
        world = World(client, scenario)
        try:
            runner.run(world.run())
        except Violation as exc:
            exc.add_note(str(scenario))
            exc.log = world.journal.log
            raise
        finally:
            world.broker.close()
            logging.disable(logging.NOTSET)
    return world
