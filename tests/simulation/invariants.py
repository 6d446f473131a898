"""What must hold after each step of a seed, and what at its end. Each is a small class that says what it promises.

A new rule brings its invariant: a class here, in ``INVARIANTS``. What today's engine breaks stands in
``scenario.SWITCHED_OFF``, as the trouble in which it does.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np

from penstock.workers.lanes.limiter import LATE_S, PACE, SLACK_S
from penstock.workers.lanes.states import TRANSITIONS, LaneEvent, Permission, Sender, State, may_send
from penstock.workers.results.types import EmbedResult

from .broker import Step
from .journal import TaskRecord, Violation
from .provider import vector

#: Seconds from a trouble of a process or of the clock until it is held to its promises again.
FORGIVEN_S = 12.0
#: Seconds for which an open lane with work and a worker may send nothing: a probe's time-out, and some.
STUCK_S = 45.0
#: ms for which a probe of which nothing is heard holds back the next one (reserve.lua).
PROBE_MS = 30_000
#: Interactive requests between two of bulk work that waits: ten by its share, more by the credit of each worker.
MOST_BETWEEN = 40
#: Places of a pool that interactive work fills alone, if there is enough of it.
WIDE = 64
_ID = re.compile(rb'"id": ?"(t\d+)"')


class Invariant:
    """One promise.

    Args:
        world: the seed that is running.
    """

    def __init__(self, world: Any) -> None:
        self.world, self.journal, self.broker = world, world.journal, world.broker

    def on_step(self, step: Step) -> None:
        """Look at one script that was carried out."""

    def on_messages(self) -> None:
        """Look at the messages in the broker: there are fewer."""

    def on_send(self, process: str, tasks: list[TaskRecord], texts: list[str]) -> None:
        """Look at one request that is sent."""

    def on_begin(self, process: str, task: TaskRecord) -> None:
        """Look at a task whose body begins."""

    def on_second(self) -> None:
        """Look now and then."""

    def at_end(self) -> None:
        """Look at the end: troubles are over, and all work should be done."""

    def now(self) -> float:
        """The loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    def fail(self, words: str) -> None:
        """Say what does not hold."""
        raise Violation(type(self).__name__, words)


class NoTextLost(Invariant):
    """A task without a result has its message in the broker, in exactly one place."""

    def on_messages(self) -> None:
        self._look()

    def on_second(self) -> None:
        self._look()

    def _look(self) -> None:
        found: dict[str, int] = {}
        for message in self.broker.contents():
            for each in _ID.findall(message):
                found[each.decode()] = found.get(each.decode(), 0) + 1
        for task in self.journal.tasks.values():
            count = found.get(task.id, 0)
            if count > 1:
                self.fail(f"{task.id} is in {count} places")
            if not task.answered and count == 0:
                self.fail(f"{task.id} has no result, and its message is gone")

    def at_end(self) -> None:
        self._look()
        left = [task.id for task in self.journal.open_tasks]
        if left:
            self.fail(f"not answered at the end: {left[:10]}, {len(left)} in all")
        if self.broker.messages:
            self.fail(f"{self.broker.messages} messages are left in the broker, of tasks that are answered")


class AnsweredOnce(Invariant):
    """A result is stored once, or once more for each time that the message's lease ran out; nothing runs after it."""

    def on_send(self, process: str, tasks: list[TaskRecord], texts: list[str]) -> None:
        for task in tasks:
            if task.answered and task.runs > 1 + task.lapsed + task.handed_back:
                self.fail(f"{task.id} is sent again, after its result was stored")

    def on_begin(self, process: str, task: TaskRecord) -> None:
        # Who looked for the result just before it was stored could not know of it; who was frozen holds an old message.
        if self.world.troubled(process):
            return
        if task.answered and self.now() - task.answered_at > 2 * self.world.scenario.rtt_s + 0.001:
            self.fail(f"{task.id} is run again, {self.now() - task.answered_at:.3f} s after its result was stored")

    def on_second(self) -> None:
        for task in self.journal.tasks.values():
            if task.stored > 1 + task.lapsed:
                self.fail(f"{task.id} was stored {task.stored} times; its lease ran out {task.lapsed} times")

    at_end = on_second


class PaidOnce(Invariant):
    """Where no process, link, clock or answer is lost, a text is answered once."""

    def at_end(self) -> None:
        if self.world.scenario.has("death", "freeze", "cut", "clock_step", "lost_answers") or self.world.lapses:
            return
        twice = {text: count for text, count in self.journal.good_answers.items() if count > 1}
        if twice:
            self.fail(f"answered, and paid, more than once: {list(twice.items())[:3]}")


class OnlyTheGuiltyDie(Invariant):
    """A text fails if and only if it is bad; every other one has its own vector."""

    def on_second(self) -> None:
        for task in self.journal.tasks.values():
            if task.answered and not task.checked:
                task.checked = True
                self._check(task)

    at_end = on_second

    def _check(self, task: TaskRecord) -> None:
        if not isinstance(task.result, EmbedResult):
            if self._told_that_it_is_parked(task):
                return
            self.fail(f"{task.id} failed as a whole: {task.result!r}")
            return
        failed = {failure.index: failure for failure in task.result.failures}
        for n, text in enumerate(task.texts):
            if n in task.bad:
                if n not in failed:
                    self.fail(f"{task.id}: the bad text {n} has a vector")
            elif n in failed:
                self.fail(f"{task.id}: text {n} is dead for an outside fault: {failed[n]}")
            elif not np.array_equal(task.result.vectors[n], np.array(vector(text), np.float32)):
                self.fail(f"{task.id}: text {n} has another one's vector")

    def _told_that_it_is_parked(self, task: TaskRecord) -> bool:
        """An interactive caller of a parked lane gets an error at once."""
        parks = self.world.scenario.has("bad_key")
        return task.kind == "interactive" and parks and type(task.result).__name__ == "LaneParked"


class ReservationsBalance(Invariant):
    """What was reserved is either sent or given back, and what was answered is told, once."""

    def at_end(self) -> None:
        for process, books in self.journal.books.items():
            if self.world.died(process):
                continue
            loose = books.granted - books.sent - books.given_back
            if abs(loose) > books.doubtful + 1e-6:
                self.fail(f"{process}: {books}: {loose:g} places are neither sent nor given back")
            untold = books.good - books.told_good
            if abs(untold) > books.doubtful + 1e-6:
                self.fail(f"{process}: {books}: of {untold:g} good answers nobody was told")


class OneRefusalCools(Invariant):
    """Of the refusals of requests that were sent before a cool-down none cools the lane again."""

    def on_step(self, step: Step) -> None:
        if step.script != "lanes/dispatch" or step.operation != "refuse":
            return
        stale = step.argument("seq") < step.before.cooldown_number
        if stale and step.after.cooldown_number != step.before.cooldown_number:
            self.fail(f"a refusal from before a cool-down led from {step.before} to {step.after}")


class LiveLeasesHold(Invariant):
    """A message that a live process holds is not given to another one."""

    def on_step(self, step: Step) -> None:
        if step.script != "broker/restore":
            return
        for tag, _, score, restored in zip(step.args[1::3], step.args[2::3], step.args[3::3], step.answer, strict=True):
            if restored and score != "":
                self._lapsed(str(tag))

    def _lapsed(self, tag: str) -> None:
        task_id, holder = self.journal.leases[tag]
        self.journal.tasks[task_id].lapsed += 1
        self.world.lapses += 1
        if self.world.troubled(holder) or self.now() - self.journal.stepped_at < FORGIVEN_S:
            return
        self.fail(f"the lease of {task_id} ran out while {holder} lives")


class NoLaneStuck(Invariant):
    """Where the lane may send, and there are work and a worker, something is sent."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._moved_at: float | None = None
        self._requests = -1

    def on_second(self) -> None:
        may = self.broker.may_send(Sender.BULK) is not Permission.NONE
        idle = not self.journal.open_tasks or not may or not self.world.workers_up() or self.world.provider.troubles
        if self._moved_at is None or idle or self.journal.requests != self._requests:
            self._moved_at, self._requests = self.now(), self.journal.requests
        elif self.now() - self._moved_at > STUCK_S:
            left = [task.id for task in self.journal.open_tasks]
            self.fail(f"nothing is sent for {STUCK_S:g} s of {left[:5]}, though the lane is {self.broker.lane_view()}")


class BulkIsNotStarved(Invariant):
    """Between two requests of bulk work that waits there is a bounded number of interactive ones."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._between = 0

    def on_send(self, process: str, tasks: list[TaskRecord], texts: list[str]) -> None:
        waits = any(task.kind == "bulk" and task.first_sent_at is None for task in self.journal.open_tasks)
        # See "narrow_pool" in ``scenario.SWITCHED_OFF``.
        narrow = self.world.scenario.concurrency <= WIDE
        if narrow or not waits or any(task.kind == "bulk" for task in tasks):
            self._between = 0
            return
        self._between += 1
        most = MOST_BETWEEN + 4 * self.world.scenario.workers
        if self._between > most:
            self.fail(f"{self._between} interactive requests while bulk work waits; {most} are allowed")


class QuotaKept(Invariant):
    """Requests keep to the configured limit, save for the stated slack: what may be caught up, and what comes late.

    A request that was reserved before a process froze is sent when it thaws; where a refusal or a person begins the
    schedule anew, those who have not heard of it may send what they had.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        limit = world.scenario.limit(world.scenario.provider.rpm)
        self._step_s = 60 / limit if limit else 0.0
        self._due = float("-inf")
        self._restarted_at = float("-inf")

    def on_step(self, step: Step) -> None:
        if step.script == "lanes/dispatch" and step.operation in ("refuse", "resume"):
            self._restarted_at = self.now()

    def on_send(self, process: str, tasks: list[TaskRecord], texts: list[str]) -> None:
        if not self._step_s:
            return
        now = self.now()
        if self._forgiven(now):
            self._due = now
            return
        early = self._due - now
        if early > self.slack_s:
            self.fail(
                f"a request is sent {early * 1000:.1f} ms before it is due; {self.slack_s * 1000:.1f} are allowed"
            )
        self._due = max(self._due, now) + self._step_s

    @property
    def slack_s(self) -> float:
        """Seconds by which a request may be early."""
        way_s = 2 * self.world.scenario.rtt_s * 0.2 + 0.003
        slack_s: float = SLACK_S + LATE_S + way_s + self._step_s * (1 - PACE) * 10
        return slack_s

    def _forgiven(self, now: float) -> bool:
        times = [self._restarted_at, self.journal.stepped_at, *(each.link.trouble_at for each in self.world.workers)]
        return bool(now - max(times) < FORGIVEN_S)


class OneProbeAtATime(Invariant):
    """A probing lane sends one request, and the next one when something is heard of it, or long after."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._probe_ms = float("-inf")

    def on_step(self, step: Step) -> None:
        if not step.script.startswith("lanes/"):
            return
        if step.after.state is not State.PROBING or (step.operation in ("resume", "endpoint_changed", "park")):
            self._probe_ms = float("-inf")
            return
        if step.operation != "reserve" or step.answer[0] != 1:
            return
        # By the loop's clock: a step of the server's may end a probe's time.
        since_ms = self.now() * 1000 - self._probe_ms
        if since_ms < PROBE_MS - 1 and self.now() - self.journal.stepped_at > FORGIVEN_S + PROBE_MS / 1000:
            self.fail(f"a second probe {since_ms:.0f} ms after the first")
        self._probe_ms = self.now() * 1000


class StatesKeepToTheTable(Invariant):
    """Every operation leads from the lane's state to the one that ``states.TRANSITIONS`` says, and ends no pause."""

    def on_step(self, step: Step) -> None:
        if not step.script.startswith("lanes/") or step.operation == "look":
            return
        before, after = step.before, step.after
        event = self._event(step)
        expected = TRANSITIONS[before.state][event] if event else before.state
        if after.state is not expected:
            self.fail(f"{step.operation} ({event}) led from {before} to {after}, not to {expected}")
        paused = {"pause": True, "resume": False}.get(step.operation, before.paused)
        if after.paused is not paused:
            self.fail(f"{step.operation} led from {before} to {after}")

    def _event(self, step: Step) -> LaneEvent | None:
        before, moved = step.before, step.after.cooldown_until > max(step.now_ms, step.before.cooldown_until)
        match step.operation:
            case "refuse" if step.answer[0] == 1 and (moved or before.state is not State.OPEN):
                return LaneEvent.REFUSED
            case "fail" if moved:
                return LaneEvent.RESTED
            case "park":
                return LaneEvent.PARKED
            case "pause":
                return LaneEvent.PAUSED
            case "resume":
                return LaneEvent.UNPAUSED if before.paused else LaneEvent.RESUMED
            case "endpoint_changed" if step.after.state is not before.state:
                return LaneEvent.ENDPOINT_CHANGED
            case "report" | "reserve" if step.argument("usage.ok") > 0:
                return LaneEvent.SUCCEEDED
        return None


class OnlyWhoMaySends(Invariant):
    """A place is given only where the table says that its sender may send, and none before a cool-down's end."""

    def on_step(self, step: Step) -> None:
        if step.script != "lanes/reserve" or step.answer[0] != 1:
            return
        sender = Sender.BULK if step.argument("bulk") else Sender.INTERACTIVE
        state, at_ms = step.before.state, step.now_ms + float(step.answer[1])
        if step.argument("usage.ok") and state is State.PROBING:
            state = State.OPEN  # its report opened the lane
        if state is State.COOLING:
            if at_ms < step.before.cooldown_until - 0.01:
                self.fail(f"a place is given {step.before.cooldown_until - at_ms:.1f} ms before a cool-down ends")
            state = State.OPEN
        if may_send(state, sender, paused=step.before.paused) is Permission.NONE:
            self.fail(f"a place is given to {sender} on a lane that is {step.before}")


class NothingThroughAClosedLane(Invariant):
    """Once all can have heard that a lane is parked or paused, nothing is sent through it."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._closed_at: float | None = None

    def on_step(self, step: Step) -> None:
        closed = step.after.paused or step.after.state is State.PARKED
        if step.script.startswith("lanes/"):
            self._closed_at = (self._closed_at or self.now()) if closed else None

    def on_send(self, process: str, tasks: list[TaskRecord], texts: list[str]) -> None:
        if self._closed_at is None or self.world.troubled(process):
            return
        since = self.now() - self._closed_at
        if since > 0.1 + 2 * self.world.scenario.rtt_s:
            self.fail(f"a request is sent {since:.2f} s after the lane was closed: {self.broker.lane_view()}")


INVARIANTS: tuple[type[Invariant], ...] = (
    LiveLeasesHold, OneRefusalCools, NoTextLost, AnsweredOnce, PaidOnce, OnlyTheGuiltyDie, ReservationsBalance,
    NoLaneStuck, BulkIsNotStarved, QuotaKept, OneProbeAtATime, StatesKeepToTheTable, OnlyWhoMaySends,
    NothingThroughAClosedLane,
)  # fmt: skip
