"""Streamed completions: deltas, the answer they add up to, and streams that are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tasks.services.base import CompleteCall, Delta, Refused, StreamReader
from penstock.workers.lanes.outcome import OutcomeKind
from penstock.workers.results.types import Usage
from support.wire import endpoint, service

DONE = "data: [DONE]\n\n"


def event(document: Any) -> str:
    return f"data: {json.dumps(document)}\n\n"


def chunk(delta: Any = None, reason: str | None = None, index: int = 0, **more: Any) -> str:
    choice = {"index": index, "delta": delta or {}, "finish_reason": reason}
    return event({"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice]} | more)


def reader(name: str = "openai") -> StreamReader:
    settings = {"model_id": "m", "resource_name": "r", "deployment_id": "d", "api_version": "2024-10-21"}
    return service(name).stream_reader(endpoint(name, "chat_completion", settings), CompleteCall("a", stream=True))


def read(text: str, found: StreamReader | None = None) -> tuple[list[Delta], StreamReader]:
    found = found or reader()
    return list(found.feed(text.encode())), found


def refused(call: Any) -> Any:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.outcome


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
WHOLE = (
    ": ping\n\n"
    + chunk({"role": "assistant", "content": ""})
    + chunk({"content": "Hel"})
    + chunk({"content": "lo 😀"})
    + chunk(reason="stop")
    + event({"id": "c1", "model": "gpt-4o", "choices": [], "usage": USAGE})
    + DONE
)


def test_a_stream_gives_its_pieces_then_usage_then_the_end() -> None:
    deltas, stream = read(WHOLE)
    assert [delta.text for delta in deltas] == ["", "Hel", "lo 😀", "", "", ""]
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert deltas[-2].usage == Usage(9, 2, 11, requests=1)
    assert [delta.done for delta in deltas] == [False] * 5 + [True]
    stream.close()
    answer = stream.completion()
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello 😀", "stop")
    assert answer.choices[0].message == {"role": "assistant", "content": "Hello 😀"}
    assert (answer.model, answer.usage, answer.extra["id"]) == ("gpt-4o", Usage(9, 2, 11, requests=1), "c1")


@given(st.lists(st.integers(0, len(WHOLE.encode())), max_size=10))
def test_however_the_bytes_are_split_the_pieces_are_the_same(cuts: list[int]) -> None:
    data, stream = WHOLE.encode(), reader()
    ends = [0, *sorted(cuts), len(data)]
    deltas = [delta for n in range(len(ends) - 1) for delta in stream.feed(data[ends[n] : ends[n + 1]])]
    stream.close()
    assert deltas == read(WHOLE)[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        chunk({"content": "Hel"}),
        chunk({"content": "Hello"}, "stop"),  # a reason to finish is no end mark
        WHOLE.removesuffix(DONE),
        WHOLE.removesuffix("]\n\n"),
        WHOLE.removesuffix(DONE) + "data: [DON",
    ],
)
def test_a_stream_without_its_end_mark_is_cut_and_keeps_what_had_come(text: str) -> None:
    _, stream = read(text)
    outcome = refused(stream.close)
    assert (outcome.kind, outcome.code) == (OutcomeKind.NO_ANSWER, "stream_cut")
    assert outcome.billed
    assert all(choice.text in "Hello 😀" for choice in stream.completion().choices)


def test_an_end_mark_without_its_blank_line_is_an_end_all_the_same() -> None:
    for end in ("data: [DONE]", "data: [DONE]\n"):
        read(WHOLE.removesuffix(DONE) + end)[1].close()


@pytest.mark.parametrize(
    ("text", "outcome_kind", "code"),
    [
        (event({"error": {"message": "boom", "type": "server_error"}}), OutcomeKind.SERVER_ERROR, "server_error"),
        (event({"error": {"message": "m", "code": "rate_limit_exceeded"}}),
         OutcomeKind.RATE_LIMITED, "rate_limit_exceeded"),
        (event({"error": {"message": "m", "code": 429}}), OutcomeKind.RATE_LIMITED, "rate_limit_exceeded"),
        (event({"error": {"message": "No.", "code": "content_filter"}}), OutcomeKind.INPUT_REFUSED, "content_filter"),
        ('event: error\ndata: {"message": "boom"}\n\n', OutcomeKind.SERVER_ERROR, "server_error"),
        ("data: {\"choices\": [{\"del\n\n", OutcomeKind.MALFORMED, "not_json"),
        ("data: [1]\n\n", OutcomeKind.MALFORMED, "not_an_object"),
    ],
)  # fmt: skip
def test_an_error_in_mid_stream_is_refused_after_what_had_come(text: str, outcome_kind: OutcomeKind, code: str) -> None:
    stream = reader()
    came: list[Delta] = []

    def feed() -> None:
        for delta in stream.feed((chunk({"content": "Hel"}) + text + DONE).encode()):
            came.append(delta)

    outcome = refused(feed)
    assert [delta.text for delta in came] == ["Hel"]
    assert (outcome.kind, outcome.code) == (outcome_kind, code)


def test_tool_calls_come_in_pieces_and_end_whole() -> None:
    parts = [
        {"role": "assistant", "content": None,
         "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 1, "id": "call_2", "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
    ]  # fmt: skip
    _, stream = read("".join(chunk(part) for part in parts) + chunk(reason="tool_calls") + DONE)
    choice = stream.completion().choices[0]
    assert choice.tool_calls == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "call_2", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_choices_are_kept_apart() -> None:
    text = "".join(chunk({"content": part}, index=n) for part, n in [("a", 1), ("x", 0), ("b", 1), ("y", 0)])
    _, stream = read(text + DONE)
    assert [(c.index, c.text) for c in stream.completion().choices] == [(0, "xy"), (1, "ab")]


def test_legacy_completions_stream_their_text() -> None:
    text = event({"object": "text_completion", "choices": [{"index": 0, "text": "a"}]})
    text += event({"choices": [{"index": 0, "text": "b", "finish_reason": "length"}]}) + DONE
    deltas, stream = read(text)
    assert [delta.text for delta in deltas] == ["a", "b", ""]
    assert (stream.completion().choices[0].text, stream.completion().choices[0].finish_reason) == ("ab", "length")


def test_azure_s_first_chunk_has_no_choices_and_its_filter_results_are_kept() -> None:
    found = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]
    rest = {"index": 0, "delta": {"content": "Hi"}, "content_filter_results": {"hate": {"filtered": False}}}
    text = event({"choices": [], "prompt_filter_results": found}) + event({"choices": [rest]}) + DONE
    deltas, stream = read(text, reader("azureopenai"))
    assert [delta.text for delta in deltas] == ["Hi", ""]
    assert stream.completion().extra["prompt_filter_results"] == found
    assert stream.completion().extra["choices"] == [{"content_filter_results": {"hate": {"filtered": False}}}]


def on_your_data(delta: Any, index: int, end: bool) -> str:
    message = {"delta": delta, "index": index, "end_turn": end}
    return event({"id": "1", "choices": [{"index": 0, "messages": [message], "finish_reason": None}]})


def test_chat_on_your_data_ends_with_its_own_mark_and_leaves_out_what_the_tool_found() -> None:
    text = (
        on_your_data({"role": "tool", "content": '{"citations": []}'}, 0, False)
        + on_your_data({"role": "assistant"}, 1, False)
        + on_your_data({"content": "Azure is"}, 1, False)
        + on_your_data({"content": " a cloud."}, 1, False)
        + on_your_data({"content": "[DONE]"}, 2, True)
    )
    deltas, stream = read(text, reader("azureopenai"))
    stream.close()
    assert deltas[-1].done
    assert stream.completion().choices[0].text == "Azure is a cloud."


def test_chat_on_your_data_s_end_mark_may_stand_outside_of_the_choices() -> None:
    text = on_your_data({"content": "Hi"}, 1, False)
    text += event({"messages": [{"delta": {"content": "[DONE]"}, "index": 2, "end_turn": True}]})
    read(text, reader("azureopenai"))[1].close()


def test_a_model_that_says_done_has_not_ended_its_stream() -> None:
    _, stream = read(chunk({"content": "[DONE]"}))
    assert refused(stream.close).code == "stream_cut"


def test_what_follows_the_end_is_ignored() -> None:
    deltas, _ = read(WHOLE + chunk({"content": "more"}))
    assert deltas[-1].done
