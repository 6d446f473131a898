"""Messages that are nearly right: sound ones of all our tasks, changed in a few places, by a seed."""

from __future__ import annotations

import base64
import copy
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

Json = Any

#: What may stand in the place of anything.
ODD: tuple[Json, ...] = (
    None, True, 0, -1, 1e308, 2**70, "", "x", "\ud800", "\x00", "a" * 2000, [], [None], [[]], {}, {"": None},
    {"a": {"b": []}},
)  # fmt: skip
HEADERS: dict[str, tuple[Json, ...]] = {
    "eta": ("yesterday", "2020-01-01T00:00:00+00:00", 5, [], "9999-99-99"),
    "expires": ("2020-01-01T00:00:00+00:00", "never", 5, {}),
    "retries": (-1, "many", 10**6, None),
    "timelimit": ([None], "ab", [None, None], {}, [1e-9, 1e-9]),
    "group": (5, "g", [], {"x": 1}),
    "root_id": (5, [], {}), "parent_id": (5, [], {}), "argsrepr": (5, [], None), "shadow": (5, [], {}),
    "lang": (5, "js", None),
    "compression": ("application/zstd", "zlib", "none", 5),
    "task": ("penstock.embed", "tests.add", "no.such.task", "", 5, None, "celery.backend_cleanup"),
    "id": ("", 5, None, [], "\ud800"),
    "penstock-deaths": (5, [9, 9, 9], [2, 3, "x"], "two"),
    "penstock-progress": (5, [], "x"), "origin": (5, [], {}),
}  # fmt: skip
TASKS: tuple[tuple[str, str, Json], ...] = (
    ("penstock.embed", "penstock.docs.interactive", [[["one", "two"], "docs"], {}, {}]),
    ("penstock.embed", "penstock.docs.bulk", [[["three"], "docs"], {"input_type": "search"}, {}]),
    ("penstock.complete", "penstock.docs.interactive", [["hello", "docs"], {}, {}]),
    ("penstock.chunk", "penstock.chunk", [["A text. And another one.", "docs"], {}, {}]),
    ("tests.add", "penstock", [[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
)


#: Where they are put.
QUEUES = ("penstock", "penstock.chunk", "penstock.docs.interactive", "penstock.docs.bulk")


def messages(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield queues, and what to put on each."""
    chance = random.Random(seed)
    for _ in range(count):
        task, queue, body = chance.choice(TASKS)
        yield chance.choice((queue, queue, queue, "penstock", "penstock.chunk")), _message(task, body, chance)


def _message(task: str, body: Json, chance: random.Random) -> bytes:
    where = chance.choice(("arguments", "body", "headers", "envelope", "bytes"))
    body = copy.deepcopy(body)
    if where == "arguments":
        _change_somewhere(body, chance)
    raw = json.dumps(body).encode()
    if where == "body":
        raw = _broken(raw, chance)
    task_id = str(uuid.UUID(int=chance.getrandbits(128)))
    envelope = {
        "body": base64.b64encode(raw).decode(), "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0},
        "properties": {
            "correlation_id": task_id, "body_encoding": "base64", "delivery_info": {}, "delivery_tag": task_id,
        },
    }  # fmt: skip
    if where == "headers":
        for name in chance.sample(sorted(HEADERS), chance.randint(1, 2)):
            envelope["headers"][name] = chance.choice(HEADERS[name])  # type: ignore[index]
    if where == "envelope":
        _change_somewhere(envelope, chance)
    made = json.dumps(envelope).encode()
    return _broken(made, chance) if where == "bytes" else made


def _change_somewhere(value: Json, chance: random.Random) -> None:
    """Put something odd in place of a part of a list or mapping, or take the part out."""
    parts = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not parts:
        return
    part = chance.choice(parts)
    inner = value[part]
    if isinstance(inner, dict | list) and inner and chance.random() < 0.7:
        _change_somewhere(inner, chance)
    elif chance.random() < 0.2:
        del value[part]
    else:
        value[part] = copy.deepcopy(chance.choice(ODD))


def _broken(raw: bytes, chance: random.Random) -> bytes:
    """Cut bytes off, change some, or put some in."""
    at = chance.randrange(len(raw))
    match chance.choice(("cut", "change", "insert", "double")):
        case "cut":
            return raw[:at]
        case "change":
            return raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
        case "insert":
            return raw[:at] + chance.randbytes(chance.randint(1, 8)) + raw[at:]
        case _:
            return raw + raw
