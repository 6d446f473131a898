"""Azure AI Model Inference: chat, embeddings of texts and images, info; at ``/models`` and at the root.

Source: Azure AI Model Inference REST API reference (2024-05-01-preview).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.answers.chat import answer_chat, check_completion, read_chat
from penstock.stand_in.answers.embeddings import check_inputs, dimensions_of, faulty, read_inputs, usage_of
from penstock.stand_in.answers.typed_vectors import TYPES, typed
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, StandInOperation, Work
from penstock.stand_in.request.delivery import whole
from penstock.stand_in.request.exchange import free_handler, handler
from penstock.stand_in.tokens import estimate
from penstock.stand_in.vectors import vectors
from penstock.stand_in.vendors.azure_ai_words import AZURE_AI

_EMBEDDING_FIELDS = frozenset({"model", "input", "dimensions", "encoding_format", "input_type"})
_CHAT_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "seed", "stop", "max_tokens", "temperature", "top_p"}
    | {"frequency_penalty", "presence_penalty", "response_format", "tool_choice", "tools", "modalities"}
)


def with_known_fields(known: frozenset[str], read: Callable[[Call], Work]) -> Callable[[Call], Work]:
    """Return a reader that first does with unknown fields what the header ``extra-parameters`` says."""

    def read_known(call: Call) -> Work:
        what = call.request.headers.get("extra-parameters", "error")
        extra = [name for name in call.body if name not in known]
        if what not in ("error", "drop", "pass-through"):
            raise refusals.invalid("'extra-parameters' must be error, drop or pass-through.", "extra-parameters")
        if extra and what == "error":
            raise refusals.unsupported(extra[0], call.body[extra[0]])
        if extra and what == "drop":
            call.stand_in.stats.events["extra_parameters_dropped"] += len(extra)
            call.body = {name: value for name, value in call.body.items() if name in known}
        return read(call)

    return read_known


def check_embeddings(call: Call, work: Work) -> None:
    """Hold the request to the caps and to the parameters that the model takes."""
    for name in call.options.unsupported:
        if name in call.body:
            raise refusals.unsupported(name, call.body[name])
    check_inputs(call, work)


def read_pictures(call: Call) -> Work:
    """Read images as data URLs, each perhaps with a text."""
    items = call.body.get("input")
    if not isinstance(items, list) or not items:
        raise refusals.invalid("'input' must be a list that is not empty.", "input")
    texts = [_picture(item) for item in items]
    tokens = estimate(texts, call.options.bytes_per_token)
    return Work(str(call.body.get("model", "image-embedding")), texts, tokens, sum(tokens))


def _picture(item: Any) -> str:
    """Return the words by which an image is known: its hash, then its text."""
    image = item.get("image") if isinstance(item, Mapping) else None
    if not isinstance(image, str):
        raise refusals.invalid("'input' must hold objects with 'image'.", "input")
    head, _, data = image.partition(",")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not head.startswith("data:image/") or not head.endswith(";base64") or not content:
        raise refusals.invalid("'image' must be a data URL: data:image/png;base64,...", "input")
    name = hashlib.blake2b(content, digest_size=6).hexdigest()
    return f"{name} {item.get('text') or ''}".strip()


def answer_embeddings(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Embed, and answer in the number type asked for."""
    kind = call.body.get("encoding_format") or "float"
    if kind not in TYPES:
        raise refusals.unsupported("encoding_format", kind)
    items = faulty(vectors(work.texts, dimensions_of(call)), fault, call.options.seed)
    data = [{"object": "embedding", "index": index, "embedding": typed(row, kind)} for index, row in items]
    body: dict[str, Any] = {"id": f"{call.number:08d}", "object": "list", "data": data, "model": work.model}
    if (usage := usage_of(call.options, sum(work.tokens))) is not None:
        body["usage"] = usage
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


async def info(call: Call) -> web.StreamResponse:
    """Tell which model is deployed."""
    options = call.options
    name = options.models[0] if options.models else "stand-in"
    body = {"model_name": name, "model_type": options.info_type, "model_provider_name": "Penstock"}
    call.stand_in.stats.answered(call.stand_in.wall(), 200)
    return whole(Reply(orjson.dumps(body), headers=call.headers))


OPERATIONS = {
    "chat/completions": StandInOperation(
        "azure_ai.chat", AZURE_AI, with_known_fields(_CHAT_FIELDS, read_chat), check_completion, answer_chat
    ),
    "embeddings": StandInOperation(
        "azure_ai.embeddings",
        AZURE_AI,
        with_known_fields(_EMBEDDING_FIELDS, read_inputs),
        check_embeddings,
        answer_embeddings,
    ),
    "images/embeddings": StandInOperation(
        "azure_ai.image_embeddings",
        AZURE_AI,
        with_known_fields(_EMBEDDING_FIELDS, read_pictures),
        check_embeddings,
        answer_embeddings,
    ),
}


def routes() -> list[web.RouteDef]:
    """Return the routes of Azure AI Model Inference."""
    found = []
    for base in ("", "/models"):
        found.append(web.get(f"{base}/info", free_handler("azure_ai.info", AZURE_AI, info)))
        found += [web.post(f"{base}/{path}", handler(operation)) for path, operation in OPERATIONS.items()]
    return found
