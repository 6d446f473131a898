"""Chat on your data: Azure OpenAI's completions extensions of 2023, with ``dataSources`` and an answer in ``messages``.

Source: Azure OpenAI REST API reference of 2023, "Completions extensions".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from penstock.stand_in.answers.chat import CREATED, chat_choices, read_chat
from penstock.stand_in.answers.sse import event, stream
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, Stream, Work


def read(call: Call) -> Work:
    """Read ``dataSources`` and ``messages``."""
    sources = call.body.get("dataSources")
    if not isinstance(sources, list) or not sources or not all(isinstance(source, Mapping) for source in sources):
        raise refusals.invalid("'dataSources' must be a list that is not empty.", "dataSources")
    for source in sources:
        parameters = source.get("parameters")
        missing = [name for name in ("endpoint", "key", "indexName") if not (parameters or {}).get(name)]
        if source.get("type") == "AzureCognitiveSearch" and missing:
            raise refusals.invalid(f"'dataSources' lacks parameters: {', '.join(missing)}.", "dataSources")
    for header in ("chatgpt_url", "chatgpt_key"):
        call.stand_in.stats.events[header] += header in call.request.headers
    work = read_chat(call)
    return replace(work, details=replace(work.details, count=1))


async def answer(call: Call, work: Work, fault: Fault | None) -> Reply | Stream:
    """Answer with the tool's message, which holds the citations, and the assistant's."""
    answer = chat_choices(call, work.details, fault)[0]
    text = f"{answer.generated.text} [doc1]"
    head = {"id": f"{call.number:08d}-1a2b-3c4e5f-a123-12345678abcd", "model": "", "created": CREATED}
    delay_s = call.options.token_delay_ms / 1000
    if call.body.get("stream"):
        return stream(_events(head, _citations(work), (*answer.generated.parts, " [doc1]")), fault, delay_s)
    await asyncio.sleep(delay_s * len(answer.generated.parts))
    messages = [
        {"index": 0, "role": "tool", "content": _citations(work), "end_turn": False},
        {"index": 1, "role": "assistant", "content": text, "end_turn": True},
    ]
    choice = {"index": 0, "messages": messages, "finish_reason": answer.finish_reason}
    return Reply(orjson.dumps({**head, "object": "chat.completion", "choices": [choice]}))


def _citations(work: Work) -> str:
    citation = {
        "content": f"A passage about {work.texts[0][:80]}",
        "id": None,
        "title": "A document",
        "filepath": None,
        "url": None,
        "metadata": {"chunking": "original document size=250."},
        "chunk_id": "0",
    }
    return orjson.dumps({"citations": [citation], "intent": orjson.dumps([work.texts[0][:80]]).decode()}).decode()


def _events(head: Mapping[str, Any], citations: str, parts: tuple[str, ...]) -> list[bytes]:
    """Return the chunks; a message ``[DONE]`` ends them, and no other mark."""

    def chunk(index: int, delta: Mapping[str, Any], end: bool = False) -> bytes:
        message = {"index": index, "delta": delta, "end_turn": end}
        choice = {"index": 0, "messages": [message], "finish_reason": None}
        return event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    events = [chunk(0, {"role": "tool", "content": citations}), chunk(1, {"role": "assistant"})]
    events += [chunk(1, {"content": part}) for part in parts]
    return [*events, chunk(2, {"content": "[DONE]"}, end=True)]
