"""Azure OpenAI's deployment paths: OpenAI's operations, the deployment in place of the model, Azure's errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.answers import on_your_data
from penstock.stand_in.answers.chat import answer_chat, check_completion, read_chat
from penstock.stand_in.answers.completions import answer_completion, read_completion
from penstock.stand_in.answers.embeddings import answer_embeddings, check_inputs, read_inputs
from penstock.stand_in.answers.images import answer_image, check_prompt, read_image
from penstock.stand_in.answers.sse import event
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, StandInOperation, Stream, Work
from penstock.stand_in.request.exchange import handler
from penstock.stand_in.vendors import azure_images
from penstock.stand_in.vendors.azure_words import AZURE, check_version, filter_results


def deployed(read: Callable[[Call], Work]) -> Callable[[Call], Work]:
    """Return a reader that takes the model from the path."""

    def read_deployed(call: Call) -> Work:
        check_version(call)
        return replace(read(call), model=call.request.match_info["deployment"])

    return read_deployed


async def answer_azure_chat(call: Call, work: Work, fault: Fault | None) -> Reply | Stream:
    """Answer a chat; the content filter's findings go with it, in a chunk of its own before a stream."""
    answer = await answer_chat(call, work, fault)
    findings = [{"prompt_index": 0, "content_filter_results": filter_results(False)}]
    if isinstance(answer, Stream):
        first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": findings}
        return replace(answer, parts=_after(event(first), answer.parts))
    body: dict[str, Any] = orjson.loads(answer.body)
    for choice in body["choices"]:
        choice["content_filter_results"] = filter_results(choice["finish_reason"] == "content_filter")
    return replace(answer, body=orjson.dumps({**body, "prompt_filter_results": findings}))


async def _after(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part


def check_image(call: Call, work: Work) -> None:
    """Hold the request to what ``dall-e-3`` takes: one image of one of three sizes."""
    check_prompt(work, 4000, 1)
    size = call.body.get("size", "1024x1024")
    if size not in ("1024x1024", "1792x1024", "1024x1792"):
        raise refusals.invalid("'size' must be 1024x1024, 1792x1024 or 1024x1792.", "size", value=size)


def answer_azure_image(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Answer with the picture and the content filter's findings."""
    body = orjson.loads(answer_image(call, work, fault).body)
    for item in body["data"]:
        item["revised_prompt"] = f"A small square of one colour: {work.texts[0]}"
        item["content_filter_results"] = item["prompt_filter_results"] = filter_results(False)
    return Reply(orjson.dumps(body))


OPERATIONS = {
    "embeddings": StandInOperation("azure.embeddings", AZURE, deployed(read_inputs), check_inputs, answer_embeddings),
    "chat/completions": StandInOperation("azure.chat", AZURE, deployed(read_chat), check_completion, answer_azure_chat),
    "completions": StandInOperation(
        "azure.completions", AZURE, deployed(read_completion), check_completion, answer_completion
    ),
    "extensions/chat/completions": StandInOperation(
        "azure.on_your_data", AZURE, deployed(on_your_data.read), check_completion, on_your_data.answer
    ),
    "images/generations": StandInOperation(
        "azure.images", AZURE, deployed(read_image), check_image, answer_azure_image
    ),
}


def routes() -> list[web.RouteDef]:
    """Return the routes of Azure OpenAI."""
    base = "/openai/deployments/{deployment}"
    found = [web.post(f"{base}/{path}", handler(operation)) for path, operation in OPERATIONS.items()]
    return found + azure_images.routes()
