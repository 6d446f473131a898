"""Bedrock's runtime: InvokeModel with Titan's and Cohere's embeddings, Converse and ConverseStream.

Source: Amazon Bedrock user guide, model parameters; Amazon Bedrock API reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hmac import compare_digest
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.answers import converse
from penstock.stand_in.answers.chat import check_completion
from penstock.stand_in.answers.embeddings import check_inputs, faulty
from penstock.stand_in.answers.typed_vectors import typed
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, StandInOperation, Work
from penstock.stand_in.request.exchange import handler
from penstock.stand_in.request.refusals import No, RequestRefused
from penstock.stand_in.request.sigv4 import access_key, problem
from penstock.stand_in.tokens import estimate
from penstock.stand_in.vectors import vectors
from penstock.stand_in.vendors import cohere
from penstock.stand_in.vendors.bedrock_words import BEDROCK

_TITAN_FIELDS = frozenset({"inputText", "dimensions", "normalize", "embeddingTypes"})
_TITAN_DIMENSIONS = (1024, 512, 256)


def check_signature(call: Call) -> None:
    """Refuse a wrong signature; a bearer key has been looked at already."""
    known = dict(pair.partition(":")[::2] for pair in call.options.aws_key)
    signer = access_key(call.request.headers.get("authorization", ""))
    if not known or (call.key and not signer):
        return
    secret = next((secret for name, secret in known.items() if compare_digest(name.encode(), signer.encode())), None)
    if secret is None:
        raise refusals.unauthorized()
    headers = {name.lower(): value for name, value in call.request.headers.items()}
    if wrong := problem(call.request.method, call.request.raw_path, headers, call.raw, secret):
        raise RequestRefused(No("unauthorized", 403, wrong, code="signature"))


def signed(read: Callable[[Call], Work]) -> Callable[[Call], Work]:
    """Return a reader that first checks the signature."""

    def read_signed(call: Call) -> Work:
        check_signature(call)
        return read(call)

    return read_signed


def read_invoke(call: Call) -> Work:
    """Read Titan's one text or Cohere's many, by the name of the model."""
    model = call.request.match_info["model"]
    if "cohere" in model:
        return replace(cohere.read(call), model=model)
    text = call.body.get("inputText")
    extra = [name for name in call.body if name not in _TITAN_FIELDS]
    if extra:
        raise refusals.invalid(
            f"Malformed input request: #: extraneous key [{extra[0]}] is not permitted, please reformat your input."
        )
    if not isinstance(text, str):
        raise refusals.invalid("Malformed input request: #: required key [inputText] not found.")
    tokens = estimate([text], call.options.bytes_per_token)
    return Work(model, [text], tokens, sum(tokens), "inputText")


def check_invoke(call: Call, work: Work) -> None:
    """Hold the request to its model's rules."""
    if "cohere" in work.model:
        cohere.check_texts(call, work)
        return
    check_inputs(call, work)
    dimensions = call.body.get("dimensions")
    if dimensions is not None and dimensions not in _TITAN_DIMENSIONS:
        raise refusals.invalid(f"Malformed input request: dimensions must be one of {_TITAN_DIMENSIONS}.")


def answer_invoke(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Embed, in the model's own answer."""
    if fault is not None and fault.kind == "shuffled":
        fault = None  # nothing in the answer could tell
    headers = {"x-amzn-bedrock-input-token-count": str(sum(work.tokens))}
    body = _cohere(call, work, fault) if "cohere" in work.model else _titan(call, work, fault)
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers)


def _titan(call: Call, work: Work, fault: Fault | None) -> dict[str, Any]:
    dimensions = call.body.get("dimensions") or (1024 if "v2" in work.model else call.options.dimensions)
    kept = faulty(vectors(work.texts, dimensions), fault, 0)
    body: dict[str, Any] = {"inputTextTokenCount": sum(work.tokens)}
    if call.options.usage == "absent":
        body.clear()
    for _, row in kept:
        types = call.body.get("embeddingTypes") or ["float"]
        body["embeddingsByType"] = {kind: typed(row, kind) for kind in types if kind in ("float", "binary")}
        if "float" in types:
            body["embedding"] = row
    return body


def _cohere(call: Call, work: Work, fault: Fault | None) -> dict[str, Any]:
    types = call.body.get("embedding_types")
    rows = cohere.rows_of(call, work, fault)
    return {
        "id": f"{call.number:08d}",
        "texts": work.texts,
        "embeddings": cohere.by_type(rows, types) if types else rows,
        "response_type": "embeddings_by_type" if types else "embeddings_floats",
    }


OPERATIONS = {
    "invoke": StandInOperation("bedrock.invoke", BEDROCK, signed(read_invoke), check_invoke, answer_invoke),
    "converse": StandInOperation("bedrock.converse", BEDROCK, signed(converse.read), check_completion, converse.answer),
    "converse-stream": StandInOperation(
        "bedrock.converse_stream", BEDROCK, signed(converse.read), check_completion, converse.answer_stream
    ),
}


def routes() -> list[web.RouteDef]:
    """Return the routes of bedrock-runtime."""
    return [web.post("/model/{model}/" + path, handler(operation)) for path, operation in OPERATIONS.items()]
