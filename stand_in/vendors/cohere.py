"""Cohere's own ``/v2/embed``.

Source: Cohere API reference, "Embed API (v2)" and "Errors".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from aiohttp import web
from numpy.typing import NDArray

from penstock.stand_in.answers.embeddings import check_inputs, dimensions_of, faulty, texts_of
from penstock.stand_in.answers.typed_vectors import TYPES, typed
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, StandInOperation, Work
from penstock.stand_in.request.exchange import handler
from penstock.stand_in.request.refusals import No
from penstock.stand_in.vectors import vectors

MAX_TEXTS = 96
INPUT_TYPES = ("search_document", "search_query", "classification", "clustering", "image")
_WORDS = {
    "unauthorized": "invalid api token",
    "billing": "You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the "
    "Trial key for free or upgrade to a Production key with higher rate limits.",
}
_RATE = "You are using a Trial key, which is limited to {limit} / minute. You can continue to use the Trial key."


class CohereWords:
    """``{"id", "message"}``; 498 for filtered content."""

    name = "cohere"

    def words(self, call: Call, no: No) -> Reply:
        message = _WORDS.get(no.kind, no.message)
        if no.kind in ("rate", "concurrency", "slow_down"):
            message = _RATE.format(limit="100 API calls" if no.limit == "requests" else "100000 tokens")
        status = 498 if no.kind == "content_filter" else no.status
        return Reply(orjson.dumps({"id": f"{call.number:08d}", "message": message}), status)


COHERE = CohereWords()


def read(call: Call) -> Work:
    """Read ``texts`` and ``model``."""
    texts, tokens = texts_of(call.body.get("texts"), call.options.bytes_per_token, "texts")
    return Work(str(call.body.get("model", "embed-v4.0")), texts, tokens, sum(tokens), "texts")


def check(call: Call, work: Work) -> None:
    """Hold the request to 96 texts, a known ``input_type`` and known ``embedding_types``."""
    check_texts(call, work)
    if not call.body.get("embedding_types"):
        raise refusals.invalid("invalid request: embedding_types must be given", "embedding_types")


def check_texts(call: Call, work: Work) -> None:
    """Hold texts to Cohere's rules, at Cohere and at Bedrock."""
    most = min(MAX_TEXTS, call.options.max_inputs)
    if len(work.texts) > most:
        message = f"invalid request: total number of texts must be at most {most} - received {len(work.texts)}"
        raise refusals.invalid(message, "texts")
    if call.body.get("input_type") not in INPUT_TYPES:
        raise refusals.invalid(f"invalid request: input_type must be one of {', '.join(INPUT_TYPES)}", "input_type")
    types = call.body.get("embedding_types") or ["float"]
    if not isinstance(types, list) or any(kind not in TYPES for kind in types):
        raise refusals.invalid(f"invalid request: embedding_types must be of {', '.join(TYPES)}", "embedding_types")
    if call.body.get("truncate", "END") not in ("NONE", "START", "END"):
        raise refusals.invalid("invalid request: truncate must be one of NONE, START, END", "truncate")
    if call.body.get("truncate") == "NONE":
        check_inputs(call, work)


def rows_of(call: Call, work: Work, fault: Fault | None) -> list[NDArray[np.float32]]:
    """Return the vectors, as a fault of the contents leaves them; there is no index to set right."""
    return [row for _, row in faulty(vectors(work.texts, dimensions_of(call, "output_dimension")), fault, 0)]


def by_type(rows: Sequence[NDArray[np.float32]], types: Sequence[str]) -> Mapping[str, list[Any]]:
    """Return the vectors in each of the types asked for."""
    return {kind: [typed(row, kind) for row in rows] for kind in types}


def answer(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Embed."""
    if fault is not None and fault.kind == "shuffled":
        fault = None  # nothing in the answer could tell
    body = {
        "id": f"{call.number:08d}",
        "texts": work.texts,
        "embeddings": by_type(rows_of(call, work, fault), call.body["embedding_types"]),
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": sum(work.tokens)}},
        "response_type": "embeddings_by_type",
    }
    if call.options.usage == "absent":
        del body["meta"]
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def routes() -> list[web.RouteDef]:
    """Return the route of ``/v2/embed``."""
    return [web.post("/v2/embed", handler(StandInOperation("cohere.embed", COHERE, read, check, answer)))]
