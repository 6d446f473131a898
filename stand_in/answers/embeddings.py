"""Embeddings in OpenAI's wire format, which Azure OpenAI and every compatible server share."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.stand_in.faults import uniform
from penstock.stand_in.options import Options
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, Work
from penstock.stand_in.tokens import estimate
from penstock.stand_in.vectors import MAX_DIMENSIONS, vectors


def read_inputs(call: Call) -> Work:
    """Read ``input``, ``model``, ``dimensions`` and ``encoding_format``."""
    body = call.body
    model = body.get("model", "text-embedding-3-small")
    if not isinstance(model, str):
        raise refusals.invalid("'model' must be a string.", "model", value=model)
    texts, tokens = texts_of(body.get("input"), call.options.bytes_per_token)
    return Work(model, texts, tokens, sum(tokens))


def texts_of(value: Any, bytes_per_token: float, param: str = "input") -> tuple[list[str], list[int]]:
    """Return the inputs as texts with their counts of tokens; an input of token numbers is a text of its own."""
    if isinstance(value, str) or _token_numbers(value):
        value = [value]
    if not isinstance(value, list) or not value:
        raise refusals.invalid(f"'{param}' must be a string or a list of strings that is not empty.", param)
    if all(isinstance(item, str) for item in value):
        return value, estimate(value, bytes_per_token)
    if not all(isinstance(item, str) or _token_numbers(item) for item in value):
        raise refusals.invalid(f"'{param}' holds neither strings nor lists of token numbers.", param)
    texts = [item if isinstance(item, str) else " ".join(map(str, item)) for item in value]
    counts = estimate(texts, bytes_per_token)
    return texts, [len(item) if isinstance(item, list) else count for item, count in zip(value, counts, strict=True)]


def _token_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, int) for item in value)


def check_inputs(call: Call, work: Work) -> None:
    """Hold the request to the caps: inputs, tokens an input, tokens in all, no empty input."""
    options = call.options
    if len(work.texts) > options.max_inputs:
        raise refusals.max_inputs(options.max_inputs)
    if work.cost > options.max_request_tokens:
        raise refusals.max_request_tokens(options.max_request_tokens, work.cost)
    for position, (text, count) in enumerate(zip(work.texts, work.tokens, strict=True)):
        if not text:
            raise refusals.invalid(f"Invalid '{work.param}[{position}]': input cannot be an empty string.", work.param)
        if count > options.max_input_tokens:
            named = position if options.name_input else None
            raise refusals.too_long(options.max_input_tokens, count, work.param, named)


def dimensions_of(call: Call, name: str = "dimensions") -> int:
    """Return how many dimensions the request asks for."""
    value = call.body.get(name)
    if value is None:
        return call.options.dimensions
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_DIMENSIONS:
        raise refusals.invalid(f"'{name}' must be from 1 to {MAX_DIMENSIONS}.", name, value=value)
    return value


def faulty(rows: NDArray[np.float32], fault: Fault | None, seed: int) -> list[tuple[int, NDArray[np.float32]]]:
    """Return ``(index, vector)`` pairs as a fault of the contents leaves them."""
    items = list(enumerate(rows))
    if fault is None:
        return items
    at = min(fault.position, len(items) - 1)
    if fault.kind == "short":
        del items[-1]
    elif fault.kind == "wrong-dimension":
        items[at] = (at, rows[at][:-1])
    elif fault.kind == "nan":
        spoilt = rows[at].copy()
        spoilt[0] = np.nan
        items[at] = (at, spoilt)
    elif fault.kind == "shuffled":
        items.sort(key=lambda item: uniform(seed, item[0]))
    return items


def usage_of(options: Options, prompt: int) -> Mapping[str, int] | None:
    """Return the ``usage`` object as ``--usage`` wants it, None for none."""
    if options.usage == "absent":
        return None
    count = {"zero": 0, "nonsense": -7}.get(options.usage, prompt)
    return {"prompt_tokens": count, "total_tokens": count}


def answer_embeddings(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Embed, and answer as base64 or floats."""
    encoding = call.body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise refusals.invalid("'encoding_format' must be 'float' or 'base64'.", "encoding_format", value=encoding)
    rows = vectors(work.texts, dimensions_of(call))
    items = faulty(rows, fault, call.options.seed)
    as_floats = encoding == "float" or call.options.ignore_base64
    body: dict[str, Any] = {"object": "list", "data": _data(items, as_floats), "model": work.model}
    if (usage := usage_of(call.options, sum(work.tokens))) is not None:
        body["usage"] = usage
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def _data(items: Sequence[tuple[int, NDArray[np.float32]]], as_floats: bool) -> list[dict[str, Any]]:
    if as_floats:
        return [{"object": "embedding", "index": index, "embedding": row} for index, row in items]
    encode = base64.b64encode
    return [
        {
            "object": "embedding",
            "index": index,
            "embedding": encode(row.astype("<f4", copy=False).tobytes()).decode("ascii"),
        }
        for index, row in items
    ]
