"""What the stand-in makes up: texts, values of a schema, pictures, number types, events, operations."""

import base64
import json
import struct
import zlib

import jsonschema
import numpy as np
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from penstock.stand_in.answers.eventstream import event, exception
from penstock.stand_in.answers.generation import example_of, generate, split_text, trim
from penstock.stand_in.answers.image_jobs import ImageJob
from penstock.stand_in.answers.png import colour_of, png
from penstock.stand_in.answers.sse import spoilt
from penstock.stand_in.answers.typed_vectors import typed
from penstock.stand_in.request.call import Fault
from penstock.stand_in.request.sigv4 import access_key, problem
from penstock.stand_in.tokens import estimate
from penstock.stand_in.vectors import vector


def test_an_answer_is_the_same_for_the_same_prompt_and_choices_differ():
    first = generate("What is a penstock?", 0, 30, None)
    assert first == generate("What is a penstock?", 0, 30, None)
    assert first.text != generate("What is a penstock?", 1, 30, None).text
    assert (len(first.parts), first.finish_reason) == (30, "stop")


@pytest.mark.parametrize(
    ("limit", "stop", "text", "reason"),
    [
        (None, (), "One two three four", "stop"),
        (4, (), "One two three four", "stop"),
        (2, (), "One two", "length"),
        (None, ("three",), "One two ", "stop"),
        (2, ("three",), "One two", "length"),
        (3, ("two", "One t"), "", "stop"),
        (None, ("",), "One two three four", "stop"),
    ],
)
def test_a_text_ends_where_the_limit_or_a_stop_sequence_ends_it(limit, stop, text, reason):
    ended = trim(["One", " two", " three", " four"], limit, stop)
    assert (ended.text, ended.finish_reason) == (text, reason)


@given(st.text(max_size=80))
def test_pieces_make_up_their_text_again(text):
    assert "".join(split_text(text)) == text


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": ["null", "string"]}},
            "required": ["a"],
        },
        {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 3},
        {"anyOf": [{"const": 4}, {"type": "string"}]},
        {"$defs": {"n": {"type": "number", "minimum": 9}}, "properties": {"x": {"$ref": "#/$defs/n"}}},
        {"type": "boolean"},
    ],
)
def test_an_example_fits_its_schema(schema):
    jsonschema.validate(example_of(schema), schema)


def test_a_schema_that_holds_itself_ends():
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    jsonschema.validate(example_of(tree), tree)
    assert example_of({"$ref": "#"}) is not None


def test_a_picture_is_a_valid_png_of_one_colour():
    data = png(0x102030)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, kinds = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IDAT":
            assert zlib.decompress(body) == (b"\0" + b"\x10\x20\x30" * 8) * 8
        place += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    assert colour_of("chair", 0) != colour_of("chair", 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("int8", [127, -127, 0, 64, 13, -1, 0, 0]),
        ("uint8", [255, 1, 128, 192, 141, 127, 128, 128]),
        ("ubinary", [0b10011000]),
        ("binary", [0b10011000 - 128]),
    ],
)
def test_small_number_types_hold_what_their_names_say(kind, expected):
    row = np.array([1.0, -1.0, 0.0, 0.5, 0.1, -0.01, 0.0, 0.0], np.float32)
    assert typed(row, kind).tolist() == expected


def test_base64_holds_little_endian_float32():
    row = vector("a", 16)
    assert np.frombuffer(base64.b64decode(typed(row, "base64")), "<f4").tolist() == row.tolist()


EVENTS = [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, EVENTS),
        ("nan", EVENTS),
        ("cut-stream", [b"1", b"2"]),
        ("truncated", [b"1", b"2"]),
        ("error-stream", [b"1", b"2", b"E"]),
        ("malformed", [b"1", b"2", b"G"]),
    ],
)
def test_a_stream_is_spoilt_half_way(kind, expected):
    assert spoilt(EVENTS, Fault(kind) if kind else None, b"E", b"G") == expected


def test_event_streams_are_what_botocore_reads():
    buffer = EventStreamBuffer()
    buffer.add_data(event("contentBlockDelta", {"a": "é"}) + exception("modelStreamErrorException", "no"))
    first, second = buffer
    assert first.headers[":event-type"] == "contentBlockDelta"
    assert json.loads(first.payload) == {"a": "é"}
    assert second.headers[":message-type"] == "exception"
    assert json.loads(second.payload) == {"message": "no"}


@pytest.mark.parametrize("path", ["/model/amazon.titan-embed-text-v2%3A0/invoke", "/model/a%2Fb/converse?x=1&b=%20"])
def test_a_signature_of_botocore_is_right_and_any_change_makes_it_wrong(path):
    request = AWSRequest("POST", f"http://localhost:99{path}", headers={"Content-Type": "application/json"}, data=b"{}")
    SigV4Auth(Credentials("AKID", "SECRET"), "bedrock", "us-east-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()} | {"host": "localhost:99"}
    assert access_key(headers["authorization"]) == "AKID"
    assert problem("POST", path, headers, b"{}", "SECRET") == ""
    assert "does not match" in problem("POST", path, headers, b"{ }", "SECRET")
    assert "does not match" in problem("POST", path, headers, b"{}", "OTHER")
    assert "does not match" in problem("POST", path.replace("%3A", ":").replace("%2F", "/"), headers, b"{}", "SECRET")
    assert "dates" in problem("POST", path, headers | {"x-amz-date": "20200101T000000Z"}, b"{}", "SECRET")
    assert "well-formed" in problem("POST", path, {"authorization": "Bearer x"}, b"{}", "SECRET")


def test_an_operation_finds_its_states_one_by_one_after_its_errors():
    job = ImageJob("id", "p", 1, ("notRunning", "running", "succeeded"), errors=2)
    found = [(job.poll(), job.finished) for _ in range(6)]
    assert found == [
        (None, False),
        (None, False),
        ("notRunning", False),
        ("running", False),
        ("succeeded", True),
        ("succeeded", True),
    ]


def test_an_operation_that_fails_at_once_has_ended_at_its_first_poll():
    job = ImageJob("id", "p", 1, ("failed",))
    assert not job.finished
    assert (job.poll(), job.finished) == ("failed", True)


@pytest.mark.parametrize(
    ("text", "ratio", "tokens"),
    [("", 4, 1), ("a", 4, 1), ("abcd", 4, 1), ("abcde", 4, 2), ("éé", 4, 1), ("abcde", 2.5, 2)],
)
def test_tokens_are_estimated_from_bytes_rounded_up(text, ratio, tokens):
    assert estimate([text], ratio) == [tokens]
