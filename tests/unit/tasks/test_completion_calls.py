"""What a call of ``complete`` or ``generate_image`` asks of the service."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid
from penstock.tasks.completion.task import divide, prepare
from penstock.tasks.images import task as image
from penstock.workers.results.types import Choice, CompleteResult

CHAT = Endpoint("chat", TaskType.COMPLETION, "openai", {"model_id": "m"}, {"user": "stored"})
IMAGES = Endpoint("pictures", TaskType.IMAGE_GENERATION, "openai", {"model_id": "m"})
MESSAGE = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("given", "prompt", "messages"),
    [
        ("hello", "hello", None),
        ([MESSAGE], None, [MESSAGE]),
        ((MESSAGE,), None, [MESSAGE]),
        (["a", "b"], ["a", "b"], None),
        ([1, 2], [1, 2], None),
        ([[1, 2], [3]], [[1, 2], [3]], None),
        (CompleteResult((Choice(0, "said before"),)), "said before", None),
    ],
)
def test_texts_messages_prompts_and_results_are_taken(given: Any, prompt: Any, messages: Any) -> None:
    call = prepare(CHAT, given, {}, stream=True)
    assert (call.prompt, call.messages, call.stream) == (prompt, messages, True)


@pytest.mark.parametrize("given", ["", [], None, 7, MESSAGE, [MESSAGE, "text"], b"bytes"])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(InputInvalid, match="a list of messages"):
        prepare(CHAT, given, {})


def test_task_settings_are_overridden_and_the_rest_is_the_vendors() -> None:
    settings, parameters = divide(CHAT, {"user": "mine", "headers": {"x": "y"}, "temperature": 0, "n": 2})
    assert settings == {"user": "mine", "headers": {"x": "y"}}
    assert parameters == {"temperature": 0, "n": 2}


def test_an_images_prompt_is_a_text_or_a_completion() -> None:
    assert image.prepare(IMAGES, CompleteResult((Choice(0, "a chair"),)), {"n": 2}).prompt == "a chair"
    for given in ("", "  ", ["a"], None):
        with pytest.raises(InputInvalid, match="prompt"):
            image.prepare(IMAGES, given, {})


def test_the_public_names_are_tasks_and_the_stream() -> None:
    import penstock.tasks as tasks

    names = {name: getattr(tasks, name).name for name in ("chunk", "embed", "complete", "generate_image")}
    assert names == {name: f"penstock.{name}" for name in names}
    assert callable(tasks.stream)
    assert set(tasks.__all__) <= set(dir(tasks))
