"""What has happened in a seed, written down as it happens: for the invariants, and for whoever reads a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class Violation(AssertionError):
    """An invariant does not hold. ``invariant`` names it."""

    def __init__(self, invariant: str, words: str) -> None:
        super().__init__(f"{invariant}: {words}")
        self.invariant = invariant
        self.log: list[str] = []


@dataclass
class TaskRecord:
    """One task. Times are seconds of the loop's clock.

    Args:
        texts: its texts; those at ``bad`` are refused by the service.
        stored: how often a result was stored.
        lapsed, handed_back: how often its lease ran out, and how often its message went back for its lane's sake.
        runs: how often its body was begun.
        result: what was stored last: an ``EmbedResult`` or an exception.
    """

    id: str
    kind: str
    texts: Sequence[str]
    bad: frozenset[int]
    published_at: float
    stored: int = 0
    lapsed: int = 0
    answered_at: float = 0.0
    handed_back: int = 0
    runs: int = 0
    result: Any = None
    first_sent_at: float | None = None
    checked: bool = False

    @property
    def answered(self) -> bool:
        """Whether a result has been stored."""
        return self.stored > 0


@dataclass
class Books:
    """What one process was granted, and what it made of it."""

    granted: int = 0
    sent: int = 0
    given_back: float = 0.0
    good: int = 0
    told_good: float = 0.0
    #: What calls carried of which the process cannot know whether they were carried out.
    doubtful: float = 0.0


@dataclass
class Journal:
    """The record.

    Args:
        tasks: by id.
        task_of: the task of each text.
        good_answers: how often each text was answered.
        leases: delivery tag: task and process.
        books: by process.
        refused_at: of the last refusal for pace.
        log: the events, in words.
    """

    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    task_of: dict[str, str] = field(default_factory=dict)
    good_answers: Counter[str] = field(default_factory=Counter)
    leases: dict[str, tuple[str, str]] = field(default_factory=dict)
    books: dict[str, Books] = field(default_factory=dict)
    published: int = 0
    requests: int = 0
    refused: int = 0
    refused_at: float = float("-inf")
    stepped_at: float = float("-inf")
    lost_answers: int = 0
    log: list[str] = field(default_factory=list)

    def of(self, process: str) -> Books:
        """Return a process's books."""
        return self.books.setdefault(process, Books())

    def note(self, at_s: float, words: str) -> None:
        """Write down an event."""
        self.log.append(f"{at_s:9.4f}  {words}")

    @property
    def open_tasks(self) -> list[TaskRecord]:
        """Return the tasks without a result."""
        return [task for task in self.tasks.values() if not task.answered]
