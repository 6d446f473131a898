"""``complete`` through real workers, against the stand-in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from celery import chain

from penstock.config.errors import EndpointNotFound, InferenceFailed, InputInvalid, LaneParked, WrongTaskType
from penstock.workers.results.types import CompleteResult
from support.task_bench import USUAL_CHAT, Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

HELLO = [{"role": "user", "content": "What is a penstock?"}]
_names = itertools.count()


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    poison = {"FILTERED": "content-filter", "RUDE": "filtered-output"}
    with open_stage(valkey_server, usual=USUAL_CHAT, poison=poison) as found:
        found.start_worker()
        yield found


def test_an_answer_has_text_finish_reason_usage_and_model(bench: TaskBench, plain: str) -> None:
    answer = bench.send("complete", "What is a penstock?", plain).get(timeout=20)
    assert isinstance(answer, CompleteResult)
    assert answer.finish_reason == "stop"
    assert len(answer.text.split()) == 12
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)
    assert answer.model == plain
    assert answer.effort.requests == 1


def test_parameters_of_the_vendor_pass_and_task_settings_override(bench: TaskBench, plain: str) -> None:
    asked = {"n": 3, "max_tokens": 4, "user": "u-1"}
    answer = bench.send("complete", HELLO, plain, **asked).get(timeout=20)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    called = bench.send("complete", HELLO, plain, tools=tools).get(timeout=20)
    assert called.finish_reason == "tool_calls"
    assert called.choices[0].tool_calls[0]["function"]["name"] == "look_up"


def test_a_list_of_prompts_goes_to_the_legacy_api(bench: TaskBench, plain: str) -> None:
    answer = bench.send("complete", ["one", "two"], plain, n=2).get(timeout=20)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_a_completion_of_a_completion_composes_as_a_chain(bench: TaskBench, plain: str) -> None:
    queue = {"queue": f"penstock.{plain}.interactive"}
    steps = [
        bench.app.signature("penstock.complete", args=("What is a weir?", plain), options=queue),
        bench.app.signature("penstock.complete", args=(plain,), options=queue),
    ]
    answer = chain(*steps).apply_async().get(timeout=20)
    assert isinstance(answer, CompleteResult)
    assert answer.usage.prompt_tokens > 5


def test_filtered_output_is_a_result_and_a_filtered_prompt_an_error(bench: TaskBench, plain: str, chat: str) -> None:
    for endpoint in (plain, chat):
        assert bench.send("complete", "RUDE words", endpoint).get(timeout=20).finish_reason == "content_filter"
        with pytest.raises(InferenceFailed) as caught:
            bench.send("complete", "FILTERED words", endpoint).get(timeout=20)
        assert caught.value.code == "content_filter"


def test_transient_errors_are_tried_again_and_counted(bench: TaskBench, stage: Stage, plain: str, chat: str) -> None:
    stage.stand_in.configure(fault={"503": 0.4})
    answers = [bench.send("complete", f"question {n}", (plain, chat)[n % 2]) for n in range(12)]
    efforts = [answer.get(timeout=30).effort for answer in answers]
    assert sum(effort.requests for effort in efforts) > 12
    assert sum(effort.retries for effort in efforts) == sum(effort.requests for effort in efforts) - 12


def test_a_lane_that_cools_for_long_has_its_call_back_and_what_it_had_cost(
    bench: TaskBench, stage: Stage, plain: str, chat: str
) -> None:
    pictures = f"pictures-{next(_names)}"
    bench.azure_images(pictures, stage.stand_in.url, deployment_id=pictures)
    stage.stand_in.configure(cool_down_s=4, image_states=["succeeded"])
    calls = [bench.send("complete", "hello", endpoint) for endpoint in (plain, chat)]
    image = bench.send("generate_image", "a chair", pictures)
    efforts = [call.get(timeout=30).effort for call in [*calls, image]]
    assert [(effort.requests, effort.rate_limited) for effort in efforts] == [(2, 1), (2, 1), (3, 1)]
    assert [effort.possibly_billed_twice for effort in efforts] == [0, 0, 0]
    assert stage.stand_in.stats()["events"]["image_submits"] == 1


def test_wrong_calls_fail_before_anything_is_sent(bench: TaskBench, stage: Stage, plain: str) -> None:
    bench.openai("text_embedding", "docs", stage.stand_in.url)
    before = stage.stand_in.stats()["requests"]
    for error, arguments in [
        (WrongTaskType, ("hello", "docs")),
        (EndpointNotFound, ("hello", "no-such")),
        (InputInvalid, ("", plain)),
        (InputInvalid, ([], plain)),
        (InputInvalid, ([{"role": "user"}, "text"], plain)),
        (InputInvalid, (7, plain)),
    ]:
        with pytest.raises(error):
            bench.app.send_task("penstock.complete", arguments, queue=f"penstock.{plain}.interactive").get(timeout=20)
    assert stage.stand_in.stats()["requests"] == before


def test_a_parked_lane_is_told_to_interactive_callers(bench: TaskBench, stage: Stage, plain: str) -> None:
    stage.stand_in.configure(refuse="insufficient_quota")
    with pytest.raises(LaneParked, match=rf"penstock lane resume {plain}"):
        bench.send("complete", "hello", plain).get(timeout=20)


def test_nothing_of_the_texts_is_in_the_workers_log(bench: TaskBench, stage: Stage, chat: str) -> None:
    wait_until(lambda: "succeeded" in stage.workers[0].log, "a task in the log")
    assert "penstock?" not in stage.workers[0].log
