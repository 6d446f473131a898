"""What a completion is charged."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.tasks.completion.charge import Charge
from penstock.tasks.services.base import CompleteCall, Completion
from penstock.workers.lanes.quota import QuotaStats
from penstock.workers.lanes.tokens import FIRST_ANSWER
from penstock.workers.results.types import Usage


def charged(
    prompt: Any = "x" * 40, task_settings: Any = None, stats: QuotaStats | None = None, **parameters: Any
) -> Charge:
    call = CompleteCall(prompt=prompt, task_settings=task_settings or {}, parameters=parameters)
    return Charge(call, stats or QuotaStats())


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ({}, FIRST_ANSWER),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 100}, 100),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "best_of": 5, "n": 2}, 500),
        ({"n": 3}, 3 * FIRST_ANSWER),
        ({"max_tokens": "many"}, FIRST_ANSWER),
        ({"max_tokens": True}, FIRST_ANSWER),
        ({"task_settings": {"parameters": {"max_tokens": 7}}}, 7),
        ({"task_settings": {"parameters": {"max_tokens": 7}}, "max_tokens": 8}, 8),
    ],
)
def test_a_reservation_is_the_prompt_and_what_may_be_answered(parameters: Any, answer: float) -> None:
    assert charged(**parameters).estimate() == 10 + answer


def test_each_of_several_prompts_has_an_answer() -> None:
    found = charged(["a", "b"], max_tokens=10)
    assert found.estimate() == pytest.approx(20, abs=5)


def test_what_is_charged_is_what_was_asked_for_or_more() -> None:
    answer = Completion((), Usage(12, 40, 52, 1))
    assert (charged().used(answer), charged().made(answer)) == (12, 40)
    assert charged(max_tokens=500).made(answer) == 500
    assert charged(max_tokens=20).made(answer) == 40


def test_without_usage_nothing_is_known() -> None:
    assert charged().used(Completion(())) == 0
    assert charged().used(Completion((), Usage(0, 5, 25))) == 20


def test_the_mean_of_answers_is_learnt_and_stands_for_the_next() -> None:
    stats = QuotaStats()
    for _ in range(50):
        charged(stats=stats, n=2).made(Completion((), Usage(10, 120, 130, 1)))
    assert charged(stats=stats).estimate() == pytest.approx(10 + 60)


def test_texts_that_are_no_utf_8_have_a_size_all_the_same() -> None:
    assert charged("\ud800").size == 3
    assert charged(["\ud800"]).size > 3
