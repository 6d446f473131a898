"""Image operations as Azure OpenAI's 2023-06-01-preview has them, their states scripted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STATES = ("notRunning", "running", "succeeded", "canceled", "failed", "deleted")
_UNFINISHED = frozenset({"notRunning", "running"})


@dataclass
class ImageJob:
    """One operation.

    Args:
        identity: its id.
        prompt, count: what was asked.
        states: what each poll finds; the last stays.
        as_base64: whether the pictures come as base64.
        errors: so many first polls go wrong, and find nothing.
    """

    identity: str
    prompt: str
    count: int
    states: Sequence[str]
    as_base64: bool = False
    errors: int = 0
    polls: int = 0

    def poll(self) -> str | None:
        """Return the state that this poll finds, None where it goes wrong."""
        self.polls += 1
        seen = self.polls - self.errors
        return None if seen <= 0 else self.states[min(seen, len(self.states)) - 1]

    @property
    def state(self) -> str:
        """The state that the last poll found."""
        seen = max(1, self.polls - self.errors)
        return self.states[min(seen, len(self.states)) - 1]

    @property
    def finished(self) -> bool:
        """Whether the last poll found an end state."""
        return self.polls > self.errors and self.state not in _UNFINISHED
