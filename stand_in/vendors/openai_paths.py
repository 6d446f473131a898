"""OpenAI's paths, at ``/v1`` and, as Azure's newer API has them, at ``/openai/v1``."""

from __future__ import annotations

import orjson
from aiohttp import web

from penstock.stand_in.answers.chat import answer_chat, check_completion, read_chat
from penstock.stand_in.answers.completions import answer_completion, read_completion
from penstock.stand_in.answers.embeddings import answer_embeddings, check_inputs, read_inputs
from penstock.stand_in.answers.images import PATH, answer_image, check_image, picture, read_image
from penstock.stand_in.request.call import StandInOperation
from penstock.stand_in.request.exchange import handler
from penstock.stand_in.state import STAND_IN
from penstock.stand_in.vendors.openai_words import OPENAI

_MODELS = ("text-embedding-3-small", "text-embedding-3-large", "gpt-4o-mini", "gpt-3.5-turbo-instruct", "dall-e-3")


async def models(request: web.Request) -> web.Response:
    """List the models."""
    names = request.app[STAND_IN].options.models or _MODELS
    data = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "stand-in"} for name in names]
    body = orjson.dumps({"object": "list", "data": data})
    return web.Response(body=body, content_type="application/json")


OPERATIONS = {
    "embeddings": StandInOperation("openai.embeddings", OPENAI, read_inputs, check_inputs, answer_embeddings),
    "chat/completions": StandInOperation("openai.chat", OPENAI, read_chat, check_completion, answer_chat),
    "completions": StandInOperation("openai.completions", OPENAI, read_completion, check_completion, answer_completion),
    "images/generations": StandInOperation("openai.images", OPENAI, read_image, check_image, answer_image),
}


def routes() -> list[web.RouteDef]:
    """Return the routes of OpenAI's API."""
    found = [web.get(PATH + "/{name}", picture)]
    for base in ("/v1", "/openai/v1"):
        found.append(web.get(f"{base}/models", models))
        found += [web.post(f"{base}/{path}", handler(operation)) for path, operation in OPERATIONS.items()]
    return found
