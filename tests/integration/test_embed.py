"""``embed`` through a real worker: vectors, bad inputs alone, retries, sharing requests; against the stand-in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from celery.result import AsyncResult

from penstock.config.errors import EndpointNotFound, InputInvalid, WrongTaskType
from penstock.stand_in.vectors import vector
from penstock.workers.results.types import EmbedResult
from support.task_bench import SHORT_LEASES, Stage, TaskBench, open_stage
from support.valkey import ValkeyServer

DIMENSIONS = 16
_names = itertools.count()
#: What the stand-in goes back to after each test.
USUAL = {
    "fault": {}, "latency_ms": 0, "refuse": "", "usage": "right", "should_retry": "", "name_input": False,
    "max_inputs": 2048, "ignore_base64": False, "rpm": None, "tpm": None,
}  # fmt: skip
Embed = Callable[..., AsyncResult]


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    env = {**SHORT_LEASES, "PENSTOCK_RETRY_ATTEMPTS": "4"}
    with open_stage(valkey_server, env, USUAL, dimensions=DIMENSIONS) as found:
        found.start_worker("-c", "150")
        yield found


@pytest.fixture
def docs(stage: Stage, bench: TaskBench) -> str:
    """An endpoint with a lane of its own, without limits."""
    return endpoint(stage, bench)


def endpoint(stage: Stage, bench: TaskBench, **settings: Any) -> str:
    name = f"docs-{next(_names)}"
    bench.openai("text_embedding", name, stage.stand_in.url, model=name, **settings)
    return name


def embed(bench: TaskBench, texts: Any, inference_id: str, job_class: str = "bulk", **overrides: Any) -> AsyncResult:
    """Send an ``embed`` call on a queue of the lane."""
    queue = f"penstock.{inference_id}.{job_class}"
    sent: AsyncResult = bench.app.send_task("penstock.embed", (texts, inference_id), overrides, queue=queue)
    return sent


def got(result: AsyncResult, timeout: float = 40) -> EmbedResult:
    answer = result.get(timeout=timeout)
    assert isinstance(answer, EmbedResult)
    return answer


def check(answer: EmbedResult, texts: Sequence[Any], bad: Sequence[int] = ()) -> None:
    """Check that exactly the ``bad`` ones failed and that every other text has its own vector."""
    assert [failure.index for failure in answer.failures] == sorted(bad)
    assert answer.vectors.shape[0] == len(texts)
    for n, text in enumerate(texts):
        if n in bad:
            assert not np.isfinite(answer.vectors[n]).any()
        else:
            assert np.array_equal(answer.vectors[n], vector(text, DIMENSIONS)), f"a wrong vector for {text!r}"


class Requests:
    """Counts the stand-in's requests since it was made."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.before = stage, stage.stand_in.stats()["requests"]

    def __int__(self) -> int:
        return int(self.stage.stand_in.stats()["requests"]) - int(self.before)


# Vectors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_class", ["interactive", "bulk"])
def test_vectors_come_in_input_order_in_float32_with_usage_model_and_effort(
    bench: TaskBench, docs: str, job_class: str
) -> None:
    texts = [f"text {n} of some length" for n in range(200)]
    answer = got(embed(bench, texts, docs, job_class))
    check(answer, texts)
    assert answer.vectors.dtype == np.float32
    assert (answer.model, answer.failures, answer.effort.requests) == (docs, (), 1)
    assert answer.usage.total_tokens >= 200
    assert answer.usage.requests == 1


def test_a_call_is_cut_into_as_many_requests_as_the_caps_ask_for(stage: Stage, bench: TaskBench) -> None:
    docs = endpoint(stage, bench, max_inputs_per_request=16)
    texts = [f"text {n}" for n in range(100)]
    counted = Requests(stage)
    answer = got(embed(bench, texts, docs))
    check(answer, texts)
    assert int(counted) == answer.effort.requests == answer.usage.requests == 7


def test_servers_that_answer_in_decimal_numbers_give_the_same_vectors(
    stage: Stage, bench: TaskBench, docs: str
) -> None:
    stage.stand_in.configure(ignore_base64=True)
    check(got(embed(bench, ["a", "b"], docs)), ["a", "b"])


def test_chunks_are_taken_as_texts(bench: TaskBench, docs: str) -> None:
    chunks = [{"start": 0, "end": 5, "text": "first"}, {"start": 5, "end": 11, "text": "second"}]
    check(got(embed(bench, chunks, docs)), ["first", "second"])


def test_a_single_string_is_one_text(bench: TaskBench, docs: str) -> None:
    check(got(embed(bench, "alone", docs)), ["alone"])


@pytest.mark.parametrize("usage", ["absent", "zero", "nonsense"])
def test_usage_that_is_absent_zero_or_nonsense_costs_nothing(stage: Stage, bench: TaskBench, usage: str) -> None:
    docs = endpoint(stage, bench, rate_limit={"requests_per_minute": 6000, "tokens_per_minute": 6_000_000})
    stage.stand_in.configure(usage=usage)
    calls = [[f"{usage} {n}-{m}" for m in range(40)] for n in range(6)]
    for texts, result in [(texts, embed(bench, texts, docs)) for texts in calls]:
        check(got(result), texts)


# Inputs that can never be sent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_class", ["interactive", "bulk"])
def test_inputs_that_can_never_be_sent_fail_alone_and_the_others_are_embedded(
    stage: Stage, bench: TaskBench, docs: str, job_class: str
) -> None:
    texts = ["good", "", " \n\t", None, 7, {"no": "text"}, ["list"], "x" * 200_000, "fine", "\ud800 half a character"]
    counted = Requests(stage)
    answer = got(embed(bench, texts, docs, job_class))
    check(answer, texts, bad=[*range(1, 8), 9])
    codes = [failure.code for failure in answer.failures]
    assert codes == ["empty_text"] * 2 + ["invalid_text"] * 4 + ["input_too_long", "invalid_text"]
    assert all(failure.message for failure in answer.failures)
    assert int(counted) <= 3


def test_nothing_but_empty_texts_is_no_request(stage: Stage, bench: TaskBench, docs: str) -> None:
    counted = Requests(stage)
    answer = got(embed(bench, ["", "  "], docs))
    assert (answer.vectors.shape, len(answer.failures), int(counted)) == ((2, 0), 2, 0)
    assert got(embed(bench, [], docs)).vectors.shape == (0, 0)
    assert int(counted) == 0


def test_a_text_a_little_over_the_cap_is_left_to_the_server_and_costs_its_neighbours_nothing(
    stage: Stage, bench: TaskBench, docs: str
) -> None:
    texts = ["before", "word " * 12_000, "after"]
    answer = got(embed(bench, texts, docs))
    check(answer, texts, bad=[1])
    assert answer.failures[0].code == "input_too_long"
    assert answer.effort.requests == 3
    assert answer.effort.retries == 0


def test_wrong_calls_fail_with_their_own_errors_and_send_nothing(stage: Stage, bench: TaskBench, docs: str) -> None:
    bench.openai("completion", "chat", stage.stand_in.url)
    counted = Requests(stage)
    wrong = [(WrongTaskType, ["a"], "chat"), (EndpointNotFound, ["a"], "no-such"), (InputInvalid, 7, docs)]
    for error, texts, inference_id in wrong:
        with pytest.raises(error):
            _send(bench, docs, texts, inference_id).get(timeout=20)
    assert int(counted) == 0


def _send(bench: TaskBench, queue_of: str, texts: Any, inference_id: str) -> Any:
    return bench.app.send_task("penstock.embed", (texts, inference_id), queue=f"penstock.{queue_of}.interactive")


# Isolation ---------------------------------------------------------------------------------------------------------


def poisoned(count: int, culprits: Sequence[int], mark: str) -> list[str]:
    return [f"text {n} {mark}" if n in culprits else f"text {n} of {count}" for n in range(count)]


@pytest.mark.parametrize("mark", ["[[content-filter]]", "[[too-long]]"])
@pytest.mark.parametrize(
    ("count", "culprits"),
    [(64, [0]), (64, [63]), (64, [31, 32]), (100, [5, 50, 77]), (7, [0, 1, 2, 3, 4, 5, 6]), (2, [1]), (33, range(10))],
)
def test_texts_that_the_provider_refuses_are_found_in_few_requests_and_their_neighbours_are_kept(
    stage: Stage, bench: TaskBench, docs: str, mark: str, count: int, culprits: Sequence[int]
) -> None:
    texts = poisoned(count, culprits, mark)
    counted = Requests(stage)
    answer = got(embed(bench, texts, docs))
    check(answer, texts, culprits)
    assert {failure.code for failure in answer.failures} <= {
        "content_filter",
        "input_too_long",
        "context_length_exceeded",
    }
    assert int(counted) == answer.effort.requests <= 1 + 2 * len(culprits) * math.ceil(math.log2(count))


def test_a_culprit_that_the_server_names_is_set_apart_at_once(stage: Stage, bench: TaskBench, docs: str) -> None:
    stage.stand_in.configure(name_input=True)
    texts = poisoned(100, [41, 42], "[[content-filter]]")
    answer = got(embed(bench, texts, docs))
    check(answer, texts, [41, 42])
    assert answer.effort.requests <= 5


def test_texts_that_always_make_the_server_fail_are_found_as_well(stage: Stage, bench: TaskBench) -> None:
    kinds = ["500", "reset-after", "malformed", "short", "wrong-dimension", "nan", "truncated", "error-200", "html-200"]
    texts = {kind: poisoned(12, [3, 11], f"[[{kind}]]") for kind in kinds}
    results = {kind: embed(bench, texts[kind], endpoint(stage, bench)) for kind in kinds}
    for kind, result in results.items():
        answer = got(result)
        check(answer, texts[kind], [3, 11])
        assert answer.effort.requests <= 4 + 2 * 2 * 4 * 3, kind
        assert all(failure.attempts >= 1 for failure in answer.failures), kind


def test_answers_in_another_order_are_put_right(stage: Stage, bench: TaskBench, docs: str) -> None:
    texts = [f"[[shuffled]] {n}" for n in range(50)]
    answer = got(embed(bench, texts, docs))
    check(answer, texts)
    assert answer.effort.requests == 1


def test_a_cap_of_inputs_that_nobody_told_us_of_is_learnt_from_the_refusal(
    stage: Stage, bench: TaskBench, docs: str
) -> None:
    stage.stand_in.configure(max_inputs=16)
    texts = [f"text {n}" for n in range(100)]
    answer = got(embed(bench, texts, docs))
    check(answer, texts)
    assert answer.effort.requests == 1 + 7


# Retries -----------------------------------------------------------------------------------------------------------


def test_transient_failures_are_tried_again_and_counted(stage: Stage, bench: TaskBench, docs: str) -> None:
    stage.stand_in.configure(fault={"503": 0.2, "reset-before": 0.1})
    calls = [[f"call {n} text {m}" for m in range(3)] for n in range(20)]
    answers = [got(result) for result in [embed(bench, texts, docs) for texts in calls]]
    for texts, answer in zip(calls, answers, strict=True):
        check(answer, texts)
    assert sum(answer.effort.retries for answer in answers) > 0
    assert sum(answer.effort.requests for answer in answers) > 20


def test_the_server_may_forbid_another_try(stage: Stage, bench: TaskBench, docs: str) -> None:
    stage.stand_in.configure(should_retry="false", fault={"500": 1.0})
    answer = got(embed(bench, ["once"], docs))
    assert [failure.attempts for failure in answer.failures] == [1]
    assert answer.effort.requests == 1


def test_the_server_may_ask_for_another_try_of_what_would_fail(stage: Stage, bench: TaskBench, docs: str) -> None:
    stage.stand_in.configure(should_retry="true")
    answer = got(embed(bench, ["[[content-filter]] again"], docs))
    assert [(failure.code, failure.attempts) for failure in answer.failures] == [("content_filter", 4)]


def test_attempts_have_an_end(stage: Stage, bench: TaskBench, docs: str) -> None:
    stage.stand_in.configure(fault={"500": 1.0})
    answer = got(embed(bench, ["in vain"], docs))
    assert [failure.attempts for failure in answer.failures] == [4]
    assert answer.effort.requests == 4


# Sharing requests ---------------------------------------------------------------------------------------------------


def test_small_calls_on_a_busy_lane_ride_together_and_each_caller_has_its_own_rows(
    stage: Stage, bench: TaskBench
) -> None:
    docs = endpoint(stage, bench, rate_limit={"requests_per_minute": 300})
    calls = [[f"caller {n} text {m}" for m in range(1 + n % 3)] for n in range(120)]
    counted = Requests(stage)
    results = [embed(bench, texts, docs, "interactive") for texts in calls]
    for texts, result in zip(calls, results, strict=True):
        check(got(result), texts)
    assert int(counted) < 40


def test_each_callers_failure_is_its_own(stage: Stage, bench: TaskBench) -> None:
    docs = endpoint(stage, bench, rate_limit={"requests_per_minute": 1200})
    calls = [[f"caller {n}", f"[[content-filter]] of {n}"] if n % 20 == 7 else [f"caller {n}"] for n in range(60)]
    results = [embed(bench, texts, docs, "interactive") for texts in calls]
    for texts, result in zip(calls, results, strict=True):
        check(got(result), texts, bad=[1] if len(texts) == 2 else [])


def test_calls_with_other_settings_do_not_ride_together(stage: Stage, bench: TaskBench) -> None:
    docs = endpoint(stage, bench, rate_limit={"requests_per_minute": 1200})
    results = [embed(bench, [f"caller {n}"], docs, "interactive", user=f"user-{n % 2}") for n in range(10)]
    for n, result in enumerate(results):
        check(got(result), [f"caller {n}"])


def test_a_lone_call_on_an_idle_lane_waits_for_nobody(stage: Stage, bench: TaskBench, docs: str) -> None:
    for n in range(3):
        answer = got(embed(bench, [f"alone {n}"], docs, "interactive"))
        check(answer, [f"alone {n}"])
        assert answer.effort.requests == 1


def test_nothing_of_texts_vectors_or_keys_is_in_the_workers_log(stage: Stage, bench: TaskBench, docs: str) -> None:
    got(embed(bench, ["SENTINEL-TEXT [[content-filter]]", "SENTINEL-TEXT"], docs))
    log = stage.workers[0].log
    assert "penstock.embed" in log
    assert "SENTINEL" not in log
    assert "a-key-of-no-worth" not in log
