"""Bedrock's Converse and ConverseStream.

Source: Amazon Bedrock API reference, "Converse" and "ConverseStream".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import orjson

from penstock.stand_in.answers.chat import Asked, completion_work, stops, whole_number
from penstock.stand_in.answers.eventstream import event, exception
from penstock.stand_in.answers.generation import Generated, example_of, generate
from penstock.stand_in.answers.sse import paced, spoilt
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, Stream, Work

_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "content_filtered"}


def read(call: Call) -> Work:
    """Read ``messages``, ``system`` and ``inferenceConfig``."""
    messages = call.body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise refusals.invalid("1 validation error detected: 'messages' must not be empty.", "messages")
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    if roles[0] != "user":
        raise refusals.invalid("A conversation must start with a user message. Try again with one.", "messages")
    if any(role not in ("user", "assistant") for role in roles) or any(one == next_ for one, next_ in pairwise(roles)):
        raise refusals.invalid("A conversation must alternate between user and assistant roles.", "messages")
    system = call.body.get("system") or []
    prompt = "\n".join(_text(block) for part in [{"content": system}, *messages] for block in _blocks(part))
    inference = call.body.get("inferenceConfig") or {}
    if not isinstance(inference, Mapping):
        raise refusals.invalid("'inferenceConfig' must be an object.", "inferenceConfig")
    marks = stops({"stop": inference.get("stopSequences")})
    asked = Asked(prompt, 1, whole_number(inference, "maxTokens"), marks)
    return completion_work(call, asked, call.request.match_info["model"], [prompt], "messages")


def _blocks(message: Mapping[str, Any]) -> Sequence[Any]:
    blocks = message.get("content")
    if not isinstance(blocks, list):
        raise refusals.invalid("'content' must be a list of content blocks.", "messages")
    return blocks


def _text(block: Any) -> str:
    if not isinstance(block, Mapping):
        raise refusals.invalid("A content block must be an object.", "messages")
    if "toolResult" in block:
        return " ".join(str(part.get("text", "")) for part in block["toolResult"].get("content") or ())
    return str(block.get("text", ""))


def _generate(call: Call, work: Work, fault: Fault | None) -> Generated:
    asked: Asked = work.details
    made = generate(asked.prompt, 0, call.options.answer_tokens, asked.limit, asked.stop)
    if fault is not None and fault.kind == "filtered-output":
        return Generated(made.parts[: len(made.parts) // 2], "content_filter")
    return made


def _tool_use(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Use the first tool, or the one chosen, unless its result is already there."""
    config = body.get("toolConfig") or {}
    specs = [tool["toolSpec"] for tool in config.get("tools") or () if "toolSpec" in tool]
    if not specs or any("toolResult" in block for block in body["messages"][-1]["content"]):
        return None
    named = ((config.get("toolChoice") or {}).get("tool") or {}).get("name")
    spec = next((spec for spec in specs if spec.get("name") == named), specs[0])
    schema = (spec.get("inputSchema") or {}).get("json") or {"type": "object"}
    return {"toolUseId": "tooluse_0001", "name": spec.get("name"), "input": example_of(schema)}


def _usage(call: Call, work: Work, made: Generated) -> dict[str, int]:
    answer = 0 if call.options.usage == "zero" else len(made.parts)
    asked = 0 if call.options.usage == "zero" else sum(work.tokens)
    return {"inputTokens": asked, "outputTokens": answer, "totalTokens": asked + answer}


async def answer(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Answer whole."""
    made, tool = _generate(call, work, fault), _tool_use(call.body)
    await asyncio.sleep(call.options.token_delay_ms / 1000 * len(made.parts))
    content = [{"toolUse": tool}] if tool else [{"text": made.text}]
    body: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use" if tool else _reason(made, work),
        "metrics": {"latencyMs": 1},
    }
    if call.options.usage != "absent":
        body["usage"] = _usage(call, work, made)
    return Reply(orjson.dumps(body))


def _reason(made: Generated, work: Work) -> str:
    asked: Asked = work.details
    if made.finish_reason == "stop" and asked.stop and not made.text.endswith("."):
        return "stop_sequence"
    return _REASONS[made.finish_reason]


async def answer_stream(call: Call, work: Work, fault: Fault | None) -> Stream:
    """Answer in events."""
    made, tool = _generate(call, work, fault), _tool_use(call.body)
    events = [event("messageStart", {"role": "assistant"})]
    if tool:
        start = {"toolUse": {"toolUseId": tool["toolUseId"], "name": tool["name"]}}
        events.append(event("contentBlockStart", {"start": start, "contentBlockIndex": 0}))
        events.append(_delta({"toolUse": {"input": orjson.dumps(tool["input"]).decode()}}))
    else:
        events += [_delta({"text": part}) for part in made.parts]
    reason = "tool_use" if tool else _reason(made, work)
    events += [event("contentBlockStop", {"contentBlockIndex": 0}), event("messageStop", {"stopReason": reason})]
    if call.options.usage != "absent":
        events.append(event("metadata", {"usage": _usage(call, work, made), "metrics": {"latencyMs": 1}}))
    error = exception("modelStreamErrorException", "The model encountered an error while streaming.")
    left = spoilt(events, fault, error, b"\0" * 16)
    return Stream(paced(left, call.options.token_delay_ms / 1000), "application/vnd.amazon.eventstream")


def _delta(delta: Mapping[str, Any]) -> bytes:
    return event("contentBlockDelta", {"delta": delta, "contentBlockIndex": 0})
