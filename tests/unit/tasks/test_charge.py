"""What a completion is charged."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.tasks.completion import charge
from penstock.tasks.completion.charge import FIRST_GUESS, Charge
from penstock.tasks.services.base import CompleteCall, Completion
from penstock.workers.lanes.tokens import TokenRatio
from penstock.workers.results.types import Usage


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charge, "_means", {})


def charged(prompt: Any = "x" * 40, task_settings: Any = None, **parameters: Any) -> Charge:
    endpoint = Endpoint("chat", TaskType.COMPLETION, "openai", {}, quota="q")
    return Charge(endpoint, CompleteCall(prompt=prompt, task_settings=task_settings or {}, parameters=parameters))


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ({}, FIRST_GUESS),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 100}, 100),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "best_of": 5, "n": 2}, 500),
        ({"n": 3}, 3 * FIRST_GUESS),
        ({"max_tokens": "many"}, FIRST_GUESS),
        ({"max_tokens": True}, FIRST_GUESS),
        ({"task_settings": {"parameters": {"max_tokens": 7}}}, 7),
        ({"task_settings": {"parameters": {"max_tokens": 7}}, "max_tokens": 8}, 8),
    ],
)
def test_a_reservation_is_the_prompt_and_what_may_be_answered(parameters: Any, answer: float) -> None:
    assert charged(**parameters).estimate(TokenRatio()) == 10 + answer


def test_each_of_several_prompts_has_an_answer() -> None:
    found = charged(["a", "b"], max_tokens=10)
    assert found.estimate(TokenRatio()) == pytest.approx(20, abs=5)


def test_what_is_charged_is_what_was_asked_for_or_more() -> None:
    answer = Completion((), Usage(12, 40, 52, 1))
    assert (charged().used(answer), charged().made(answer)) == (12, 40)
    assert charged(max_tokens=500).made(answer) == 500
    assert charged(max_tokens=20).made(answer) == 40


def test_without_usage_nothing_is_known() -> None:
    assert charged().used(Completion(())) == 0
    assert charged().used(Completion((), Usage(0, 5, 25))) == 20


def test_the_mean_of_answers_is_learnt_and_stands_for_the_next() -> None:
    for _ in range(50):
        charged(n=2).made(Completion((), Usage(10, 120, 130, 1)))
    assert charged().estimate(TokenRatio()) == pytest.approx(10 + 60)


def test_texts_that_are_no_utf_8_have_a_size_all_the_same() -> None:
    assert charged("\ud800").size == 3
    assert charged(["\ud800"]).size > 3
