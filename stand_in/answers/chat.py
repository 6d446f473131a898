"""Chat completions in OpenAI's wire format: whole and streamed, with tools and JSON answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from penstock.stand_in.answers.generation import Generated, example_of, generate, split_text, trim
from penstock.stand_in.answers.sse import DONE, event, stream
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, Stream, Work
from penstock.stand_in.tokens import estimate

CREATED = 1_700_000_000  # answers do not depend on when they are made


@dataclass(frozen=True)
class Asked:
    """What a completion's request asks for."""

    prompt: str
    count: int
    limit: int | None
    stop: tuple[str, ...]


@dataclass(frozen=True)
class ChatAnswer:
    """One choice: a text, or calls of tools."""

    generated: Generated
    tool_calls: tuple[Mapping[str, Any], ...] = ()

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return "tool_calls" if self.tool_calls else self.generated.finish_reason


def read_chat(call: Call) -> Work:
    """Read ``messages`` and the parameters that shape the answer."""
    body = call.body
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise refusals.invalid("'messages' must be a list that is not empty.", "messages")
    prompt = "\n".join(content_of(message, place) for place, message in enumerate(messages))
    limit = whole_number(body, "max_completion_tokens") or whole_number(body, "max_tokens")
    asked = Asked(prompt, whole_number(body, "n") or 1, limit, stops(body))
    return completion_work(call, asked, str(body.get("model", "gpt-4o-mini")), [prompt], "messages")


def completion_work(call: Call, asked: Asked, model: str, texts: Sequence[str], param: str) -> Work:
    """Return the work of a completion; it is charged for what it may say, too, as OpenAI and Azure do."""
    tokens = estimate(texts, call.options.bytes_per_token)
    return Work(model, texts, tokens, max(sum(tokens), asked.limit or 16), param, asked)


def content_of(message: Any, place: int) -> str:
    """Return the text of one message, whether it is a string or a list of parts."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise refusals.invalid(f"'messages[{place}]' must be an object with a 'role'.", f"messages[{place}]")
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if content is not None and not isinstance(content, str):
        raise refusals.invalid(f"'messages[{place}].content' must be a string or a list.", f"messages[{place}].content")
    return content or ""


def whole_number(body: Mapping[str, Any], name: str) -> int | None:
    """Return a field's number, which is above zero; None where it is not given."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refusals.invalid(f"'{name}' must be a whole number above zero.", name, value=value)
    return value


def stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stop sequences: a string or up to four."""
    value = body.get("stop")
    if value is None:
        return ()
    marks = [value] if isinstance(value, str) else value
    if not isinstance(marks, list) or len(marks) > 4 or not all(isinstance(mark, str) for mark in marks):
        raise refusals.invalid("'stop' must be a string or a list of up to 4 strings.", "stop")
    return tuple(marks)


def check_completion(call: Call, work: Work) -> None:
    """Hold the request to the context length and to the parameters that the model takes."""
    asked: Asked = work.details
    if not 1 <= asked.count <= 128:
        raise refusals.invalid("'n' must be from 1 to 128.", "n", value=asked.count)
    for name in call.options.unsupported:
        if name in call.body:
            raise refusals.unsupported(name, call.body[name])
    wanted = sum(work.tokens) + (asked.limit or 0)
    if wanted > call.options.context_tokens:
        raise refusals.too_long(call.options.context_tokens, wanted, work.param)


def chat_choices(call: Call, asked: Asked, fault: Fault | None) -> list[ChatAnswer]:
    """Make the answers: calls of tools, JSON, or text."""
    if tool_calls := _tool_calls(call.body):
        return [ChatAnswer(Generated((), "stop"), tool_calls)] * asked.count
    filtered = fault is not None and fault.kind == "filtered-output"
    answers = []
    for choice in range(asked.count):
        generated = _generated(call, asked, choice)
        if filtered:
            generated = Generated(generated.parts[: len(generated.parts) // 2], "content_filter")
        answers.append(ChatAnswer(generated))
    return answers


def _generated(call: Call, asked: Asked, choice: int) -> Generated:
    wanted = call.body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind == "json_schema" and isinstance(wanted, Mapping):
        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        return trim(split_text(orjson.dumps(example_of(schema)).decode()), asked.limit)
    text = generate(asked.prompt, choice, call.options.answer_tokens, asked.limit, asked.stop)
    if kind == "json_object":
        return trim(split_text(orjson.dumps({"answer": text.text}).decode()), asked.limit)
    return text


def _tool_calls(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Call the first tool, or the one chosen, unless its result is already among the messages."""
    tools = [tool["function"] for tool in body.get("tools") or () if isinstance(tool, Mapping) and tool.get("function")]
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return ()
    if choice == "auto" and body["messages"][-1].get("role") != "user":
        return ()
    named = choice.get("function", {}).get("name") if isinstance(choice, Mapping) else None
    tool = next((tool for tool in tools if tool.get("name") == named), tools[0])
    arguments = orjson.dumps(example_of(tool.get("parameters") or {"type": "object"})).decode()
    return ({"id": "call_0001", "type": "function", "function": {"name": tool.get("name"), "arguments": arguments}},)


def completion_usage(call: Call, work: Work, answers: Sequence[Generated]) -> dict[str, Any] | None:
    """Return the ``usage`` object as ``--usage`` wants it, None for none."""
    kind = call.options.usage
    if kind == "absent":
        return None
    prompt, answer = sum(work.tokens), sum(len(answer.parts) for answer in answers)
    if kind != "right":
        prompt = answer = 0 if kind == "zero" else -7
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


async def answer_chat(call: Call, work: Work, fault: Fault | None) -> Reply | Stream:
    """Answer, whole or streamed."""
    answers = chat_choices(call, work.details, fault)
    usage = completion_usage(call, work, [answer.generated for answer in answers])
    head = {"id": f"chatcmpl-{call.number:08d}", "created": CREATED, "model": work.model}
    delay_s = call.options.token_delay_ms / 1000
    if call.body.get("stream"):
        return stream(_events(call, head, answers, usage), fault, delay_s)
    await asyncio.sleep(delay_s * max(len(answer.generated.parts) for answer in answers))
    choices = [
        {"index": index, "message": _message(answer), "logprobs": None, "finish_reason": answer.finish_reason}
        for index, answer in enumerate(answers)
    ]
    body = {**head, "object": "chat.completion", "choices": choices}
    return Reply(orjson.dumps(body if usage is None else {**body, "usage": usage}))


def _message(answer: ChatAnswer) -> dict[str, Any]:
    if answer.tool_calls:
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": answer.tool_calls}
    return {"role": "assistant", "content": answer.generated.text, "refusal": None}


def _events(
    call: Call, head: Mapping[str, Any], answers: Sequence[ChatAnswer], usage: Mapping[str, Any] | None
) -> list[bytes]:
    """Return the chunks: roles, then the pieces of all choices in turn, then reasons, perhaps usage, the end mark."""
    with_usage = (call.body.get("stream_options") or {}).get("include_usage") and usage is not None
    head = {**head, "object": "chat.completion.chunk", **({"usage": None} if with_usage else {})}

    def chunk(index: int, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**head, "choices": [choice]})

    events = [chunk(index, {"role": "assistant", "content": ""}) for index in range(len(answers))]
    for place in range(max(len(answer.generated.parts) for answer in answers)):
        for index, answer in enumerate(answers):
            if place < len(answer.generated.parts):
                events.append(chunk(index, {"content": answer.generated.parts[place]}))
    for index, answer in enumerate(answers):
        events += [chunk(index, {"tool_calls": [delta]}) for delta in _tool_deltas(answer)]
        events.append(chunk(index, {}, answer.finish_reason))
    if with_usage:
        events.append(event({**head, "choices": [], "usage": usage}))
    return [*events, DONE]


def _tool_deltas(answer: ChatAnswer) -> list[dict[str, Any]]:
    """Return a tool call as it streams: its name first, then its arguments in two parts."""
    deltas: list[dict[str, Any]] = []
    for index, tool_call in enumerate(answer.tool_calls):
        function = tool_call["function"]
        deltas.append({"index": index, **tool_call, "function": {**function, "arguments": ""}})
        half = len(function["arguments"]) // 2
        for part in (function["arguments"][:half], function["arguments"][half:]):
            deltas.append({"index": index, "function": {"arguments": part}})
    return deltas
