"""What a reader makes of a stream's entries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.errors import CutStream, InferenceFailed, LaneParked
from penstock.tasks.completion import stream_entries
from penstock.tasks.completion.stream_entries import Reader, StreamEntry, deltas_of
from penstock.tasks.services.base import Delta
from penstock.workers.results.types import Choice, CompleteResult, Usage


def stored(fields: Iterable[dict[Any, Any]], start: int = 1) -> list[StreamEntry]:
    """Return entries as Redis gives them back."""
    return [
        (b"%d-0" % n, {k.encode(): v if isinstance(v, bytes) else str(v).encode() for k, v in each.items()})
        for n, each in enumerate(fields, start)
    ]


def run(name: str, texts: Iterable[str], ended: bool = True) -> list[dict[Any, Any]]:
    parts = [stream_entries.delta_entry(name, n, Delta(text)) for n, text in enumerate(texts)]
    return [stream_entries.begin(name), *parts, *([stream_entries.end(name, len(parts))] if ended else [])]


def text_of(deltas: Iterable[Delta]) -> str:
    """Put deltas together as a careful reader does."""
    text = ""
    for delta in deltas:
        text = "" if delta.restart else text + delta.text
    return text


def test_deltas_come_back_as_they_were_put() -> None:
    usage = Usage(1, 2, 3, 1)
    raw = {"choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0}]}}]}
    deltas = [Delta("a", 1, None, None, "m"), Delta("", 1, "tool_calls", usage, "m", raw)]
    reader = Reader()
    entries = [stream_entries.begin("r"), *(stream_entries.delta_entry("r", n, each) for n, each in enumerate(deltas))]
    assert list(reader.take(stored(entries))) == deltas
    assert not reader.done
    assert reader.position == b"3-0"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}]}, False),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]}, True),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "reasoning": "b"}]}, True),
        ({"contentBlockDelta": {"delta": {"text": "a"}}}, True),
    ],
)
def test_what_the_provider_sent_is_kept_where_it_says_more_than_the_text(raw: dict[str, Any], kept: bool) -> None:
    reader = Reader()
    delta = list(
        reader.take(stored([stream_entries.begin("r"), stream_entries.delta_entry("r", 0, Delta("a", raw=raw))]))
    )
    assert bool(delta[0].raw) is kept


def test_the_end_mark_ends_it() -> None:
    reader = Reader()
    assert text_of(reader.take(stored(run("r", ["a", "b"])))) == "ab"
    assert reader.done


@pytest.mark.parametrize(
    "error",
    [
        InferenceFailed("no", "content_filter", 400, 2),
        CutStream("cut", "stream_cut", None, 1, "what came"),
        LaneParked("parked", "lane_parked"),
    ],
)
def test_an_error_is_raised_as_itself(error: InferenceFailed) -> None:
    entries = [*run("r", ["a"], ended=False), stream_entries.failure("r", error)]
    with pytest.raises(type(error)) as caught:
        list(Reader().take(stored(entries)))
    assert caught.value.args == error.args


def test_an_error_of_another_kind_is_left_to_the_result() -> None:
    reader = Reader()
    list(reader.take(stored([*run("r", ["a"], ended=False), stream_entries.failure("r", ValueError("x"))])))
    assert reader.lost
    assert not reader.done


def test_a_name_that_is_no_error_of_ours_is_not_made() -> None:
    reader = Reader()
    fake = {"k": "f", "r": "r", "v": b'["Sequence", []]'}
    list(reader.take(stored([stream_entries.begin("r"), fake])))
    assert reader.lost


def test_a_new_run_restarts_and_the_old_ones_late_words_are_passed_over() -> None:
    late = [stream_entries.delta_entry("old", 1, Delta("c")), stream_entries.end("old", 2)]
    reader = Reader()
    deltas = list(reader.take(stored([*run("old", ["a"], ended=False), *run("new", ["a", "b"], ended=False), *late])))
    assert [delta.restart for delta in deltas] == [False, True, False, False]
    assert text_of(deltas) == "ab"
    assert not reader.done


def test_a_gap_is_healed_from_the_result() -> None:
    entries = run("r", ["a", "b", "c"])
    del entries[2]
    reader = Reader()
    deltas = list(reader.take(stored(entries)))
    assert reader.lost
    assert not reader.done
    result = CompleteResult((Choice(0, "abc", "stop"),), Usage(1, 3, 4, 1), "m")
    deltas += reader.heal(result)
    assert text_of(deltas) == "abc"
    assert deltas[-1].usage == result.usage
    assert reader.done


def test_a_result_that_goes_on_otherwise_restarts() -> None:
    reader = Reader()
    deltas = list(reader.take(stored(run("r", ["x"], ended=False))))
    deltas += reader.heal(CompleteResult((Choice(0, "abc", "stop"),)))
    assert text_of(deltas) == "abc"


def test_a_stream_whose_beginning_is_cut_off_waits_for_the_result() -> None:
    reader = Reader()
    assert list(reader.take(stored(run("r", ["a", "b"])[1:]))) == []
    assert reader.lost
    assert text_of(reader.heal(CompleteResult((Choice(0, "ab", "stop"),)))) == "ab"


def test_a_whole_answer_as_pieces_has_every_choice() -> None:
    result = CompleteResult((Choice(0, "a", "stop"), Choice(1, "", "tool_calls", {"tool_calls": [{"id": "1"}]})))
    parts = deltas_of(result)
    assert [(delta_entry.index, delta_entry.text, delta_entry.finish_reason) for delta_entry in parts] == [
        (0, "a", "stop"),
        (1, "", "tool_calls"),
    ]
    assert parts[1].raw["choices"][0]["message"]["tool_calls"] == [{"id": "1"}]


@given(st.data())
def test_whatever_is_lost_or_cut_the_text_is_right_and_never_doubled(data: st.DataObject) -> None:
    text = data.draw(st.lists(st.text(max_size=3), max_size=8))
    dead = [run(f"dead-{n}", text[:kept], ended=False) for n, kept in enumerate(data.draw(_cuts(len(text))))]
    entries = stored([entry for each in [*dead, run("last", text)] for entry in each])
    missing = data.draw(st.sets(st.integers(0, max(0, len(entries) - 1)), max_size=3))
    left = [entry for n, entry in enumerate(entries) if n not in missing]
    reader, deltas = Reader(), []
    while left and not reader.done:
        count = data.draw(st.integers(1, len(left)))
        deltas += reader.take(left[:count])
        left = left[count:]
    if not reader.done:
        deltas += reader.heal(CompleteResult((Choice(0, "".join(text), "stop"),)))
    assert text_of(deltas) == "".join(text)


def _cuts(length: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, length), max_size=2)
