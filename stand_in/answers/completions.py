"""Legacy completions in OpenAI's wire format: prompts in, texts out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from penstock.stand_in.answers.chat import CREATED, Asked, completion_usage, completion_work, stops
from penstock.stand_in.answers.embeddings import texts_of
from penstock.stand_in.answers.generation import Generated, generate, split_text
from penstock.stand_in.answers.sse import DONE, event, stream
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, Stream, Work

_MAX_TOKENS = 16  # the vendor's default


def read_completion(call: Call) -> Work:
    """Read ``prompt`` (a string, several, or token numbers) and the parameters that shape the answer."""
    body = call.body
    texts, _ = texts_of(body.get("prompt", "<|endoftext|>"), call.options.bytes_per_token, "prompt")
    limit, count = body.get("max_tokens", _MAX_TOKENS), body.get("n") or 1
    if not isinstance(limit, int) or limit < 0 or not isinstance(count, int):
        raise refusals.invalid("'max_tokens' and 'n' must be whole numbers.", "max_tokens")
    asked = Asked("\n".join(texts), count, limit, stops(body))
    return completion_work(call, asked, str(body.get("model", "gpt-3.5-turbo-instruct")), texts, "prompt")


async def answer_completion(call: Call, work: Work, fault: Fault | None) -> Reply | Stream:
    """Answer; choice ``k`` of prompt ``i`` has the index ``i * n + k``."""
    asked: Asked = work.details
    answers = [_answer(call, asked, text, choice, fault) for text in work.texts for choice in range(asked.count)]
    usage = completion_usage(call, work, answers)
    head = {"id": f"cmpl-{call.number:08d}", "object": "text_completion", "created": CREATED, "model": work.model}
    delay_s = call.options.token_delay_ms / 1000
    if call.body.get("stream"):
        return stream(_events(call, head, answers, usage), fault, delay_s)
    await asyncio.sleep(delay_s * max(len(answer.parts) for answer in answers))
    choices = [_choice(index, answer.text, answer.finish_reason) for index, answer in enumerate(answers)]
    body = {**head, "choices": choices}
    return Reply(orjson.dumps(body if usage is None else {**body, "usage": usage}))


def _answer(call: Call, asked: Asked, prompt: str, choice: int, fault: Fault | None) -> Generated:
    generated = generate(prompt, choice, call.options.answer_tokens, asked.limit, asked.stop)
    if fault is not None and fault.kind == "filtered-output":
        generated = Generated(generated.parts[: len(generated.parts) // 2], "content_filter")
    if call.body.get("echo"):
        generated = Generated((*split_text(prompt), " ", *generated.parts), generated.finish_reason)
    return generated


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _events(
    call: Call, head: Mapping[str, Any], answers: Sequence[Generated], usage: Mapping[str, Any] | None
) -> list[bytes]:
    events = []
    for index, answer in enumerate(answers):
        for place, part in enumerate(answer.parts):
            reason = answer.finish_reason if place == len(answer.parts) - 1 else None
            events.append(event({**head, "choices": [_choice(index, part, reason)]}))
        if not answer.parts:
            events.append(event({**head, "choices": [_choice(index, "", answer.finish_reason)]}))
    if (call.body.get("stream_options") or {}).get("include_usage") and usage is not None:
        events.append(event({**head, "choices": [], "usage": usage}))
    return [*events, DONE]
