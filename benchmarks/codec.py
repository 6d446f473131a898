"""What should stand under a result's container? Size and time of candidates, each paired with format 1 in every round.

    python benchmarks/codec.py [--repeat 15] [--json]

Format 1, kept here alone, was a JSON header (kombu's encoder) with the arrays behind it and no checksum. Candidates put
another header in its place, or another checksum over the whole; ``msgpack, xxh3`` is what Penstock writes. For each
result: bytes, microseconds to encode and decode, and the median of the rounds' ratios to format 1 (less is better).

``msgspec`` is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import platform
import statistics
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import orjson
from kombu.utils import json as kombu_json

from penstock.workers.results import codec, format_1, serializers
from penstock.workers.results.kinds import KINDS, little_endian, read_array
from penstock.workers.results.types import Choice, CompleteResult, Effort, EmbedResult, Usage

ROUND_S = 0.02
Checksum = Callable[[list[Any]], bytes]


@dataclass(frozen=True)
class Candidate:
    """A way there and a way back."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


# Format 1 -----------------------------------------------------------------------------------------------------------


class JsonEncoder(kombu_json.JSONEncoder):
    """Format 1's header."""

    def __init__(self, tag: str) -> None:
        super().__init__(separators=(",", ":"), ensure_ascii=False)
        self.tag = tag
        self.uses = 0
        self.arrays: list[Any] = []

    def default(self, o: Any) -> Any:
        """Mark a value of a type of ours."""
        self.uses += 1
        if isinstance(o, np.ndarray):
            array, name = little_endian(o)
            self.arrays.append(array.tobytes())
            return {self.tag: ["a", name, list(array.shape)]}
        for kind, (cls, pack, _) in KINDS.items():
            if isinstance(o, cls):
                return {self.tag: [kind, *pack(o)]}
        known = super().default(o)
        return {self.tag: ["k", known["__type__"], known["__value__"]]}


def encode_1(value: Any) -> bytes:
    """Write format 1, as Penstock did."""
    form, top = shortened(value)
    tag = "~"
    while True:
        encoder = JsonEncoder(tag)
        header = encoder.encode(top)
        if header.count(f'"{tag}":') == encoder.uses:
            break
        tag += "~"
    text = header.encode()
    prefix = struct.pack("<3sBBBI", b"PSR", 1, len(tag), form, len(text))
    return b"".join([prefix, tag.encode(), text, *encoder.arrays])


# Candidates ---------------------------------------------------------------------------------------------------------


def shortened(value: Any) -> tuple[int, Any]:
    """Return the form, and a task's metadata as a list: what every candidate has in common."""
    if isinstance(value, dict) and value.keys() >= codec._META_NAMES:
        return 1, codec._without_names(value)
    return 0, value


def contained(pack: Callable[[Any, list[Any]], bytes], checksum: Checksum) -> Callable[[Any], bytes]:
    """Return an encoder that puts a header and arrays into a container as format 2's."""

    def encode(value: Any) -> bytes:
        form, top = shortened(value)
        arrays: list[Any] = []
        header = pack(top, arrays)
        parts = [struct.pack("<BI", form, len(header)), header, *arrays]
        return b"".join([struct.pack("<3sB8s", b"PSR", 2, checksum(parts)), *parts])

    return encode


def taken_out(unpack: Callable[[memoryview, memoryview], Any], checksum: Checksum) -> Callable[[bytes], Any]:
    """Return the decoder for ``contained``."""

    def decode(data: bytes) -> Any:
        view = memoryview(data)
        _, _, expected = struct.unpack_from("<3sB8s", view)
        if checksum([view[12:]]) != expected:
            raise ValueError("damaged")
        form, length = struct.unpack_from("<BI", view, 12)
        value = unpack(view[17 : 17 + length], view[17 + length :])
        return codec._with_names(value) if form else value

    return decode


def crc32(parts: list[Any]) -> bytes:
    """Return the standard library's checksum, as wide as the other one."""
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found.to_bytes(8, "little")


def behind(arrays: memoryview) -> Callable[[str, list[int]], Any]:
    """Return a reader of arrays one after another."""
    left = arrays

    def read(name: str, shape: list[int]) -> Any:
        nonlocal left
        array = read_array(name, shape, left)
        left = left[array.nbytes :]
        return array

    return read


def marked(value: Any, arrays: list[Any]) -> Any:
    """Return a value that a serializer does not know as ``[kind, *fields]``."""
    if isinstance(value, np.ndarray):
        array, name = little_endian(value)
        arrays.append(array.reshape(-1).view(np.uint8))
        return ["a", name, list(array.shape)]
    for kind, (cls, pack, _) in KINDS.items():
        if isinstance(value, cls):
            return [kind, *pack(value)]
    known = kombu_json.JSONEncoder().default(value)
    return ["k", known["__type__"], known["__value__"]]


def unmarked(kind: str, fields: list[Any], read: Callable[[str, list[int]], Any]) -> Any:
    """Undo ``marked``."""
    if kind == "a":
        return read(*fields)
    if kind == "k":
        return kombu_json.object_hook({"__type__": fields[0], "__value__": fields[1]})
    return KINDS[kind][2](fields)


def orjson_pack(value: Any, arrays: list[Any]) -> bytes:
    """Write a header with orjson. It writes NaN as null, and refuses integers of more than 64 bits."""
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(value, lambda each: {"~": marked(each, arrays)}, options)


def orjson_unpack(header: memoryview, arrays: memoryview) -> Any:
    """Read it; orjson calls no hook, so that every value is walked through."""
    read = behind(arrays)

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(each) for each in value]
        if isinstance(value, dict):
            if len(value) == 1 and "~" in value:
                kind, *fields = walk(value["~"])
                return unmarked(kind, fields, read)
            return {name: walk(each) for name, each in value.items()}
        return value

    return walk(orjson.loads(header))


def inline_pack(value: Any, arrays: list[Any]) -> bytes:
    """Write msgpack with the arrays inside their extensions: less code, more copies."""

    def extension(each: Any) -> Any:
        own: list[Any] = []
        kind, *fields = marked(each, own)
        return msgpack.ExtType(ord(kind), msgpack.packb([*fields, *map(memoryview, own)], default=extension))

    return msgpack.packb(value, default=extension)


def inline_unpack(header: memoryview, arrays: memoryview) -> Any:
    """Read it."""

    def extension(code: int, data: bytes) -> Any:
        fields = msgpack.unpackb(data, ext_hook=extension, strict_map_key=False)
        return unmarked(chr(code), fields, lambda name, shape, raw: read_array(name, shape, memoryview(raw)))

    return msgpack.unpackb(header, ext_hook=extension, strict_map_key=False)


def msgpack_pack(value: Any, arrays: list[Any]) -> bytes:
    """Write a header as Penstock does."""
    encoder = codec._Encoder()
    header = encoder.pack(value)
    arrays.extend(encoder.arrays)
    return header


def msgpack_unpack(header: memoryview, arrays: memoryview) -> Any:
    """Read a header as Penstock does."""
    return codec._Decoder(arrays).unpack(header)


def msgspec_candidate() -> Candidate:
    """Return msgspec's msgpack. It writes data classes its own way, so every value is walked through."""
    import msgspec.msgpack as spec

    plain = (str, int, float, bool, bytes, type(None))

    def walk(value: Any, arrays: list[Any]) -> Any:
        if isinstance(value, plain):
            return value
        if isinstance(value, (list, tuple)):
            return [walk(each, arrays) for each in value]
        if isinstance(value, dict):
            return {name: walk(each, arrays) for name, each in value.items()}
        kind, *fields = marked(value, arrays)
        return spec.Ext(ord(kind), spec.encode(walk(fields, arrays)))

    def unpack(header: memoryview, arrays: memoryview) -> Any:
        read = behind(arrays)

        def extension(code: int, data: memoryview) -> Any:
            return unmarked(chr(code), spec.decode(data, ext_hook=extension), read)

        return spec.decode(header, ext_hook=extension)

    def pack(value: Any, arrays: list[Any]) -> bytes:
        return spec.encode(walk(value, arrays))

    return Candidate("msgspec, xxh3", contained(pack, codec._checksum), taken_out(unpack, codec._checksum))


def candidates() -> list[Candidate]:
    """Return format 1 and its rivals."""
    ours = (msgpack_pack, msgpack_unpack)
    found = [
        Candidate("format 1", encode_1, codec.decode),
        Candidate("orjson, xxh3", contained(orjson_pack, codec._checksum), taken_out(orjson_unpack, codec._checksum)),
        Candidate(
            "msgpack inline, xxh3", contained(inline_pack, codec._checksum), taken_out(inline_unpack, codec._checksum)
        ),
        Candidate("msgpack, none", contained(ours[0], lambda parts: b""), taken_out(ours[1], lambda parts: bytes(8))),
        Candidate("msgpack, crc32", contained(ours[0], crc32), taken_out(ours[1], crc32)),
        Candidate("msgpack, xxh3", codec.encode, codec.decode),
    ]
    if importlib.util.find_spec("msgspec"):
        found.append(msgspec_candidate())
    return found


# Measuring ----------------------------------------------------------------------------------------------------------


def metadata(result: Any, **more: Any) -> dict[str, Any]:
    """Return a task's metadata as Celery's back end writes it."""
    return {
        "status": "SUCCESS",
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.UTC).isoformat(),
        "task_id": "3a7c1f0e-8f6b-4c39-9d0b-6f2f4f1f6a55",
        **more,
    }


def vectors(count: int, dimensions: int) -> EmbedResult:
    """Return an embedding of random numbers."""
    numbers = np.random.default_rng(1).standard_normal((count, dimensions), dtype=np.float32)
    return EmbedResult(numbers, Usage(8 * count, 0, 8 * count, 1), "text-embedding-3-small", (), Effort(1))


def cases() -> dict[str, Any]:
    """Return typical results."""
    answer = "A penstock is the gated pipe that feeds a turbine exactly the water that it can take. " * 12
    message = {"role": "assistant", "content": answer, "refusal": None, "annotations": []}
    extra = {"id": "chatcmpl-BfJ0", "created": 1767322445, "system_fingerprint": "fp_07871e2ad8"}
    completion = CompleteResult(
        (Choice(0, answer, "stop", message),), Usage(25, 310, 335, 1), "gpt-4o", Effort(1), extra
    )
    error = {
        "exc_type": "InferenceFailed",
        "exc_message": ["the service refused the text: reword it", "content_filter", 400, 1],
        "exc_module": "penstock.config.errors",
    }
    return {
        "1 x 1536": metadata(vectors(1, 1536)),
        "128 x 1536": metadata(vectors(128, 1536)),
        "16 x 256": metadata(vectors(16, 256)),
        "completion": metadata(completion),
        "error": metadata(error, status="FAILURE", traceback="Traceback (most recent call last): ..."),
    }


def micros(candidate: Candidate, value: Any, times: int) -> float:
    """Return microseconds of processor time for one way there and back."""
    begin = time.process_time()
    for _ in range(times):
        candidate.decode(candidate.encode(value))
    return (time.process_time() - begin) / times * 1e6


def measure(repeat: int) -> list[dict[str, Any]]:
    """Measure every candidate in each round, and compare it with the round's own format 1."""
    rows = []
    for case, value in cases().items():
        found = candidates()
        times = max(3, round(ROUND_S * 1e6 / micros(found[0], value, 10)))
        rounds = [[micros(each, value, times) for each in found] for _ in range(repeat)]
        size = len(found[0].encode(value))
        for place, each in enumerate(found):
            row = {"result": case, "codec": each.name, "bytes": len(each.encode(value))}
            row["us"] = statistics.median(took[place] for took in rounds)
            row["time_ratio"] = statistics.median(took[place] / took[0] for took in rounds)
            rows.append(row | {"size_ratio": row["bytes"] / size})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="rounds, each with a format 1 of its own")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    serializers.register()
    assert format_1.read(memoryview(encode_1([1]))) == (0, [1])
    rows = measure(options.repeat)
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rows": rows}, indent=2))
        return
    print(f"Python {platform.python_version()}, {platform.machine()}, one core.\n")
    print("| result | codec | bytes | of format 1 | encode + decode, us | of format 1 |\n|---|---|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['result']} | {row['codec']} | {row['bytes']} | {row['size_ratio']:.2f} "
            f"| {row['us']:.0f} | {row['time_ratio']:.2f} |"
        )


if __name__ == "__main__":
    main()
