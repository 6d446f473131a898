"""The result codec: bit for bit, small, and never more than data."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import struct
import uuid
from pathlib import Path
from typing import Any

import kombu.serialization
import msgpack
import numpy as np
import pytest
import xxhash
from celery import Celery
from celery.utils import uuid as new_id
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError
from kombu.utils import json as kombu_json

from penstock.config.celery import RESULT_CONTENT_TYPE, RESULT_SERIALIZER
from penstock.config.errors import CutStream, EndpointInvalid, InferenceFailed, InputInvalid, LaneParked
from penstock.workers.results import serializers
from penstock.workers.results.codec import ARRAY_TYPES, decode, encode
from penstock.workers.results.kinds import KINDS
from penstock.workers.results.mapping import result_from
from penstock.workers.results.types import (
    Choice,
    CompleteResult,
    Effort,
    EmbedResult,
    Failure,
    ImageResult,
    Usage,
)
from support.valkey import ValkeyServer

FORMAT_1 = Path(__file__).resolve().parent.parent / "fixtures" / "format_1"

serializers.register()

EMBEDDED = EmbedResult(
    np.arange(6, dtype=np.float32).reshape(2, 3),
    Usage(8, 0, 8, 1),
    "text-embedding-3-small",
    (Failure(1, "content_filter", "Löschen", 2),),
    Effort(2, 1, 0, 1),
)
COMPLETED = CompleteResult(
    (Choice(0, "hi", "stop", {"role": "assistant", "tool_calls": [{"id": "1"}]}), Choice(1, "ho", None)),
    Usage(1, 2, 3, 1),
    "gpt-4o",
    Effort(1),
    {"system_fingerprint": "fp"},
)
IMAGED = ImageResult(
    ("https://x/1",), (), "op-1", ("better", None), ("a.png",), (), Usage(0, 0, 0, 1), Effort(1), {"SUBMITTED": 1.5}
)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, EmbedResult):
        pairs = [(vars(left)[name], vars(right)[name]) for name in vars(left) if name != "vectors"]
        return same(left.vectors, right.vectors) and all(a == b for a, b in pairs)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return bool(left == right)


SMALL = [Usage(1), Effort(1), Failure(0, "a", "b"), Choice(1)]


def through_json(value: Any) -> Any:
    return kombu_json.loads(kombu_json.dumps(value))


@pytest.mark.parametrize("value", [EMBEDDED, COMPLETED, IMAGED])
def test_a_result_in_a_message_is_a_mapping_that_any_celery_reads_and_an_object_again(value: Any) -> None:
    text = kombu_json.dumps(value)
    plain = json.loads(text)
    assert "__type__" not in text
    assert plain == kombu_json.loads(text)
    back = result_from(plain)
    assert type(back) is type(value)
    assert same(value, back)
    assert same(value, result_from({**plain, "of_a_newer_version": 1}))
    assert result_from(value) is value


def test_a_mapping_shows_what_its_reader_needs() -> None:
    vectors = through_json(EMBEDDED)["vectors"]
    array = np.frombuffer(base64.b64decode(vectors["base64"]), vectors["dtype"]).reshape(vectors["shape"])
    assert same(array, EMBEDDED.vectors)
    assert through_json(COMPLETED)["text"] == COMPLETED.text


@pytest.mark.parametrize(
    "given",
    [
        None, [], {}, {"model": "m"}, {"vectors": {}}, {"vectors": {"dtype": "O", "shape": [1], "base64": ""}},
        {"vectors": {"dtype": "float32", "shape": [4, 4], "base64": "AAAA"}}, {"choices": [1]},
        {"vectors": {"dtype": "float32", "shape": [1], "base64": "AAAAAA=="}},
    ],
)  # fmt: skip
def test_what_is_no_result_is_refused(given: Any) -> None:
    with pytest.raises(InputInvalid, match="mapping"):
        result_from(given)


@pytest.mark.parametrize(("letter", "value"), [("e", EMBEDDED), ("c", COMPLETED), ("i", IMAGED)])
def test_what_an_earlier_version_put_into_a_message_is_still_read(letter: str, value: Any) -> None:
    stored = kombu_json.dumps({"__type__": f"penstock.{letter}", "__value__": KINDS[letter][1](value)})
    assert same(value, kombu_json.loads(stored))


@pytest.mark.parametrize(
    ("through", "value"),
    [(lambda v: decode(encode(v)), value) for value in [EMBEDDED, COMPLETED, IMAGED, *SMALL]]
    + [(through_json, value) for value in SMALL],
)
def test_each_type_comes_back_as_it_was_in_results_and_in_arguments(value: Any, through: Any) -> None:
    back = through(value)
    assert type(back) is type(value)
    assert same(value, back)
    nested = through({"a": [value, {"b": value}]})
    assert same(value, nested["a"][0])
    assert same(value, nested["a"][1]["b"])


@pytest.mark.parametrize("name", sorted(ARRAY_TYPES))
def test_arrays_of_every_type_keep_their_bits_and_are_writable(name: str) -> None:
    array = np.frombuffer(bytes(range(96)), dtype=ARRAY_TYPES[name]).reshape(2, -1)
    back = decode(encode(EmbedResult(array))).vectors
    assert same(array, back)
    back[0, 0] = 1
    assert back.flags.owndata or back.base.flags.owndata


def test_nan_payloads_infinities_and_signed_zeros_survive() -> None:
    bits = np.array([[0x7FC00001, 0xFF800000, 0x80000000, 0x00000001]], dtype=np.uint32)
    assert decode(encode(EmbedResult(bits.view(np.float32)))).vectors.view(np.uint32).tolist() == bits.tolist()


@pytest.mark.parametrize(
    "array", [np.empty((3, 0), np.float32), np.ones((2, 4), ">f4"), np.ones((4, 2), np.float32).T, np.ones((4, 4))[::2]]
)
def test_empty_big_endian_and_strided_arrays_are_sent_by_value(array: Any) -> None:
    back = decode(encode(array))
    assert back.shape == array.shape
    assert np.array_equal(back, array)
    assert back.dtype.isnative


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.ones(2, np.complex64)])
def test_arrays_of_objects_text_or_complex_numbers_are_refused(array: Any) -> None:
    with pytest.raises(TypeError, match="convert it"):
        encode(array)
    with pytest.raises(EncodeError):
        kombu.serialization.dumps(array, serializer=RESULT_SERIALIZER)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["~", "~~", "__type__", "__value__"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_json_comes_back_whatever_its_keys(value: Any) -> None:
    assert decode(encode(value)) == value
    back = decode(encode([value, EMBEDDED, value]))
    assert [back[0], back[2]] == [value, value]
    assert same(EMBEDDED, back[1])


def test_kombus_own_types_come_back() -> None:
    value = [datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), decimal.Decimal("1.5"), uuid.uuid4(), b"\xff\x00"]
    assert decode(encode(value)) == value
    assert math.isnan(decode(encode(float("nan"))))


def meta(result: Any, **more: Any) -> dict[str, Any]:
    return {
        "status": "SUCCESS",
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": "2026-11-20T22:48:00.123456+00:00",
        "task_id": new_id(),
        **more,
    }


@pytest.mark.parametrize(
    "more", [{}, {"group_id": "g", "parent_id": "p"}, {"traceback": "Traceback"}, {"children": [["a", None]]}]
)
def test_celerys_metadata_are_kept_and_short(more: dict[str, Any]) -> None:
    value = meta(EmbedResult(np.ones((1, 1536), np.float32), Usage(8, 0, 8, 1), "text-embedding-3-small"), **more)
    data = encode(value)
    back = decode(data)
    assert same(value.pop("result"), back.pop("result"))
    assert back == value
    assert len(data) - 1536 * 4 < 220


GOOD = encode(meta(EMBEDDED))


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_as_data_or_refused_clearly(position: int, value: int) -> None:
    data = bytearray(GOOD)
    data[position] = value
    try:
        decode(bytes(data))
    except DecodeError as exc:
        assert "cannot be read" in str(exc)  # noqa: PT017 - most changes are refused, those of numbers are not


@given(st.integers(0, len(GOOD) - 1))
def test_what_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(GOOD[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PSR",
        b'{"status": "SUCCESS"}',
        GOOD + b"x",
        b"PSR\x00" + GOOD[4:],
        b"PSR\x01" + GOOD[4:],
        b"PSR\x03" + GOOD[4:],
        "text",
        struct.pack("<3sBBBI", b"PSR", 1, 1, 0, 2**32 - 1) + b"~{}",
    ],
)
def test_what_is_no_container_is_refused(data: Any) -> None:
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(data)


def test_a_newer_format_is_refused_by_its_number() -> None:
    with pytest.raises(DecodeError, match=r"of format 3, and this Penstock reads formats up to 2.*upgrade this side"):
        decode(b"PSR\x03" + GOOD[4:])


def test_results_are_recognised_by_their_first_bytes() -> None:
    assert GOOD[:4] == encode(None)[:4] == b"PSR\x02"


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_damage_is_never_read_as_data(position: int, change: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= change
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(bytes(data))


def test_damage_is_called_damage() -> None:
    data = bytearray(encode(EMBEDDED))
    data[-1] ^= 1
    with pytest.raises(DecodeError, match="it is damaged: its checksum does not agree"):
        decode(bytes(data))


def test_keys_integers_and_bytes_come_back_as_they_were() -> None:
    value = {1: "a", None: b"\xff", 1.5: -(2**70), ("a", (2, "b")): 2**64, b"c": {True: [2**63, -(2**63) - 1]}}
    assert decode(encode(value)) == value


def checksummed(header: Any, arrays: bytes = b"", form: int = 0) -> bytes:
    """Return a container of format 2 whose checksum is right."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    rest = struct.pack("<BI", form, len(packed)) + packed + arrays
    return b"PSR\x02" + xxhash.xxh3_64_digest(rest) + rest


def extension(kind: str, *fields: Any) -> msgpack.ExtType:
    return msgpack.ExtType(ord(kind), msgpack.packb(fields))


@pytest.mark.parametrize(
    "header",
    [
        extension("a", "f4", 2**62, 2**62),
        extension("a", "f4", -1),
        extension("a", "O", 1),
        extension("a"),
        extension("a", ["f4"], 1),
        extension("x"),
        extension("k", "os.system", "id"),
        extension("k"),
        msgpack.ExtType(ord("k"), msgpack.packb({"__type__": "os.system", "__value__": "id"})),
        msgpack.ExtType(ord("k"), msgpack.packb({"__type__": "datetime", "__value__": 5})),
        extension("e", 1, 2),
        extension("e", "abc", [0], "m", [], [0]),
        extension("u", "a", "b", "c", "d", "e"),
        msgpack.ExtType(ord("e"), b""),
        msgpack.packb([1]) + b"\x00",
        b"\x91" * 5000 + b"\x00",
        b"",
        b"\xc1",
        b"\xa1\xff",
    ],
)
def test_crafted_headers_with_a_sound_checksum_are_refused(header: Any) -> None:
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(checksummed(header))


@pytest.mark.parametrize("header", [[], {}, 5, ["SUCCESS"], ["SUCCESS", 1, "", "", None, [], {}, 1], [1] * 7])
def test_incomplete_metadata_with_a_sound_checksum_are_refused(header: Any) -> None:
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(checksummed(header, form=1))


def test_a_header_longer_than_the_container_and_bytes_of_no_array_are_refused() -> None:
    rest = struct.pack("<BI", 0, 2**32 - 1) + b"\xc0"
    for data in (b"PSR\x02" + xxhash.xxh3_64_digest(rest) + rest, checksummed(None, b"more")):
        with pytest.raises(DecodeError, match="cannot be read"):
            decode(data)


def crafted(header: Any, arrays: bytes = b"") -> bytes:
    """Return a container of format 1."""
    text = json.dumps(header).encode()
    return struct.pack("<3sBBBI", b"PSR", 1, 1, 0, len(text)) + b"~" + text + arrays


@pytest.mark.parametrize(
    "header",
    [
        {"~": ["a", "f4", [2**62, 2**62]]},
        {"~": ["a", "f4", [-1]]},
        {"~": ["a", "O", [1]]},
        {"~": ["x"]},
        {"~": []},
        {"~": 5},
        {"~": ["k", "os.system", "id"]},
        {"~": ["k", "datetime", 5]},
        {"~": ["e", 1, 2]},
        {"~": ["e", "abc", [0], "m", [], [0]]},
        {"~": ["m", "SUCCESS"]},
        {"~": ["u", "a", "b", "c", "d", "e"]},
    ],
)
def test_crafted_headers_are_refused(header: Any) -> None:
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(crafted(header))


@pytest.mark.parametrize("header", [[], {}, 5, ["SUCCESS"], ["SUCCESS", 1, "", "", None, [], {}, 1], [1] * 7])
def test_incomplete_metadata_are_refused(header: Any) -> None:
    data = bytearray(crafted(header))
    data[5] = 1
    with pytest.raises(DecodeError, match="cannot be read"):
        decode(bytes(data))


FIXED = {
    "status": "SUCCESS",
    "traceback": None,
    "children": [],
    "date_done": "2026-11-20T22:48:00.123456+00:00",
    "task_id": "3a7c1f0e-8f6b-4c39-9d0b-6f2f4f1f6a55",
}
REFUSED = {
    "exc_type": "InferenceFailed",
    "exc_message": ["no: do this", "content_filter", 400, 3],
    "exc_module": "penstock.config.errors",
}
KOMBUS = [
    datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 2),
    decimal.Decimal("1.5"),
    uuid.UUID(str(FIXED["task_id"])),
    b"\xff\x00",
    b"text",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embed", FIXED | {"result": EMBEDDED}),
        ("completion", FIXED | {"result": COMPLETED, "group_id": "g", "parent_id": "p"}),
        ("image", FIXED | {"result": IMAGED}),
        ("error", FIXED | {"result": REFUSED, "status": "FAILURE", "traceback": "Traceback ..."}),
        ("kombu-types", FIXED | {"result": KOMBUS}),
    ],
)
def test_metadata_that_format_1_wrote_are_still_read(name: str, expected: dict[str, Any]) -> None:
    back = decode((FORMAT_1 / f"result-{name}.bin").read_bytes())
    assert same(expected["result"], back["result"])
    assert {**back, "result": None} == {**expected, "result": None}


def test_arrays_and_odd_keys_that_format_1_wrote_are_still_read() -> None:
    arrays = decode((FORMAT_1 / "result-arrays.bin").read_bytes())
    expected = [np.arange(6, dtype=kind).reshape(2, 3) for kind in ARRAY_TYPES.values()]
    assert all(same(left, right) for left, right in zip(expected, arrays, strict=True))
    keys = decode((FORMAT_1 / "result-keys.bin").read_bytes())
    assert same(EMBEDDED, keys.pop(1))
    assert keys == [{"~": ["e", 1]}, {"~~": 1}, 2**70, "Löschen"]


@pytest.fixture
def app(valkey: ValkeyServer) -> Any:
    app = Celery("codec", broker=valkey.url, backend=valkey.url, set_as_current=False)
    app.conf.update(
        result_serializer=RESULT_SERIALIZER,
        result_accept_content=[RESULT_CONTENT_TYPE, "json"],
        result_backend_transport_options={"global_keyprefix": "penstock:"},
        result_expires=1000,
    )
    yield app
    app.backend.result_consumer.stop()
    app.close()


def test_a_stored_vector_of_1536_dimensions_costs_less_than_6500_bytes(app: Any, valkey: ValkeyServer) -> None:
    task = new_id()
    result = EmbedResult(np.ones((1, 1536), np.float32), Usage(8, 0, 8, 1), "text-embedding-3-small", (), Effort(1))
    app.backend.store_result(task, result, "SUCCESS")
    with valkey.client() as client:
        cost = client.memory_usage(f"penstock:celery-task-meta-{task}", samples=0)
    assert cost < 6500
    back = app.AsyncResult(task).get(timeout=20)
    assert same(result, back)


@pytest.mark.parametrize(
    "error",
    [
        InferenceFailed("no: do this", "content_filter", 400, 3),
        LaneParked("parked", "insufficient_quota", 429, 1),
        CutStream("cut", "stream_cut", None, 1, "what had come"),
        EndpointInvalid(["[url] is wrong", "[model_id] is missing"]),
        ValueError("x", 1, None),
        KeyError("k"),
    ],
)
def test_errors_come_back_with_their_attributes(app: Any, error: Exception) -> None:
    task = new_id()
    app.backend.mark_as_failure(task, error, traceback="Traceback ...")
    result = app.AsyncResult(task)
    with pytest.raises(type(error)) as caught:
        result.get(timeout=20)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)
    assert result.traceback == "Traceback ..."


def test_states_with_metadata_of_a_tasks_own_come_back(app: Any) -> None:
    task = new_id()
    app.backend.store_result(task, {"operation_id": "abc"}, "RUNNING")
    assert (app.AsyncResult(task).state, app.AsyncResult(task).info) == ("RUNNING", {"operation_id": "abc"})


def test_pickle_is_not_read_and_ours_is_read_only_where_it_is_accepted() -> None:
    kind, encoding, data = kombu.serialization.dumps(EMBEDDED, serializer=RESULT_SERIALIZER)
    assert kind == RESULT_CONTENT_TYPE
    with pytest.raises(ContentDisallowed):
        kombu.serialization.loads(data, kind, encoding, accept={"application/json"})
    _, _, pickled = kombu.serialization.dumps([1], serializer="pickle")
    with pytest.raises(DecodeError):
        kombu.serialization.loads(pickled, RESULT_CONTENT_TYPE, encoding, accept={RESULT_CONTENT_TYPE})
