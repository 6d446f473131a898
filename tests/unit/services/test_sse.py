"""Server-sent events, split anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tasks.services.wire.sse import Event, SseDecoder

STREAM = (
    ": ping\n\n"
    'data: {"a": 1}\n\n'
    "event: error\r\ndata: first\r\ndata: second\r\nid: 7\r\nretry: 10\r\n\r\n"
    "data:no space\r\rdata: ünïcödé 😀\n\n"
    "event: nothing\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    Event('{"a": 1}'),
    Event("first\nsecond", "error"),
    Event("no space"),
    Event("ünïcödé 😀"),
    Event("[DONE]"),
]


def decode(parts: list[bytes]) -> list[Event]:
    decoder = SseDecoder()
    return [event for part in parts for event in decoder.feed(part)]


def test_comments_fields_and_line_ends_are_read_as_the_standard_says() -> None:
    assert decode([STREAM]) == EVENTS


def test_a_byte_at_a_time_gives_the_same_events() -> None:
    assert decode([STREAM[n : n + 1] for n in range(len(STREAM))]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    assert decode([STREAM[a:b] for a, b in itertools.pairwise(ends)]) == EVENTS


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_make_the_decoder_fail_and_no_split_changes_what_it_says(data: bytes, cut: int) -> None:
    assert decode([data[:cut], data[cut:]]) == decode([data])


def test_an_event_is_out_as_soon_as_its_blank_line_is_in() -> None:
    decoder = SseDecoder()
    assert list(decoder.feed(b"data: 1\n")) == []
    assert list(decoder.feed(b"\n")) == [Event("1")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r"])
def test_flush_gives_what_the_end_left_without_a_blank_line(end: bytes) -> None:
    decoder = SseDecoder()
    assert list(decoder.feed(b"data: [DONE]" + end)) == []
    assert decoder.flush() == Event("[DONE]")
    assert decoder.flush() is None


def test_a_byte_order_mark_before_an_event_is_passed_over() -> None:
    assert decode([b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n"]) == [Event("1"), Event("2")]
