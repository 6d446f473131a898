"""What a completion is charged against the tokens' quota: estimated before, corrected after. No I/O.

OpenAI and Azure OpenAI charge on arrival: the prompt and the ``max_tokens`` asked for, whatever is then used of them
(OpenAI's rate-limit guide; Microsoft's API simulator). Where a call asks for no maximum, the mean of what the lane's
completions have taken so far stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.tasks.services.base import CompleteCall, Completion
from penstock.workers.lanes.quota import QuotaStats
from penstock.workers.lanes.tokens import byte_length

_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Charge:
    """The charge of one call.

    Args:
        call: what is asked.
        stats: what was learnt of the endpoint's quota.
    """

    def __init__(self, call: CompleteCall, stats: QuotaStats) -> None:
        self._stats = stats
        self.size = _size(call)
        given = {**_map(call.task_settings.get("parameters")), **call.task_settings, **call.parameters}
        prompts = len(call.prompt) if call.prompt and not isinstance(call.prompt, str) else 1
        self._answers = prompts * max(_whole(given.get("n")) or 1, _whole(given.get("best_of")) or 1)
        self._asked = next((limit for name in _LIMITS if (limit := _whole(given.get(name)))), None)

    @property
    def asked(self) -> float:
        """Tokens of all answers together that are charged in any case; 0 where no maximum is asked for."""
        return float((self._asked or 0) * self._answers)

    def estimate(self) -> float:
        """Return the tokens to reserve."""
        made = self.asked or self._stats.completion.tokens * self._answers
        return self._stats.ratio.estimate(self.size) + made

    def used(self, answer: Completion) -> float:
        """Return the prompt's tokens by the provider's count, 0 when it said nothing."""
        usage = answer.usage
        return float(usage.prompt_tokens or max(0, usage.total_tokens - usage.completion_tokens))

    def made(self, answer: Completion) -> float:
        """Return the tokens charged for the answer, and learn from them."""
        made = float(answer.usage.completion_tokens)
        if made > 0:
            self._stats.completion.learn(made / self._answers)
        return max(made, self.asked)


def _size(call: CompleteCall) -> int:
    if isinstance(call.prompt, str):
        return byte_length(call.prompt)
    return byte_length(str(call.prompt if call.messages is None else call.messages))


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
