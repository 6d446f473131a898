"""Bedrock's Converse: OpenAI's messages and parameters to its own, and its answers back (streams: converse_stream).

Source: Amazon Bedrock API reference, Converse; botocore's model of bedrock-runtime.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from penstock.config.errors import InputInvalid
from penstock.tasks.services.base import CompleteCall, Completion, Refused
from penstock.tasks.services.wire import chat
from penstock.tasks.services.wire.answers import text_of
from penstock.tasks.services.wire.embeddings import fields
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Choice, Usage

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}
_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
_OWN = frozenset(
    {"system", "guardrailConfig", "promptVariables", "requestMetadata", "performanceConfig", "serviceTier"}
    | {
        "additionalModelRequestFields",
        "additionalModelResponseFieldPaths",
        "outputConfig",
        "inferenceConfig",
        "toolConfig",
    }
)
_DATA_URL = re.compile(r"data:image/(png|jpeg|jpg|gif|webp);base64,(.+)", re.DOTALL)


def body(call: CompleteCall, default_tokens: int | None) -> dict[str, Any]:
    """The request's body.

    Args:
        call: messages in OpenAI's shape (text, images as data URLs, tool calls and their results) or Converse's own.
        default_tokens: the most new tokens where the call says nothing; None leaves it to the model.

    Raises:
        InputInvalid: a message or parameter that Converse cannot express.
    """
    given = fields(call.task_settings) | dict(call.parameters)
    messages = chat.messages_of(call)
    system = [{"text": chat.text_in(m.get("content"))} for m in messages if m.get("role") in ("system", "developer")]
    talk = _alternating([_message(m) for m in messages if m.get("role") not in ("system", "developer")])
    made = {
        "messages": talk,
        "system": system or None,
        "inferenceConfig": _inference(given, default_tokens) or None,
        "toolConfig": _tools(given),
        "additionalModelRequestFields": _more(given) or None,
    }
    return made | {name: given[name] for name in _OWN if name in given}


def _inference(given: Mapping[str, Any], default_tokens: int | None) -> dict[str, Any]:
    stop = given.get("stop")
    found = {
        "maxTokens": next((given[name] for name in _LIMITS if given.get(name) is not None), default_tokens),
        "temperature": given.get("temperature"),
        "topP": given.get("top_p"),
        "stopSequences": [stop] if isinstance(stop, str) else stop,
    }
    return {name: value for name, value in found.items() if value is not None}


def _more(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the model's own, such as ``top_k``: whatever neither Converse nor OpenAI's dialect has a place for."""
    handled = {*_LIMITS, *_OWN, "temperature", "top_p", "stop", "tools", "tool_choice", "user", "truncate", "n"}
    handled |= {"stream", "stream_options"}
    return {name: value for name, value in given.items() if name not in handled and value is not None}


def _tools(given: Mapping[str, Any]) -> dict[str, Any] | None:
    tools = [_tool(tool) for tool in given.get("tools") or ()]
    choice = given.get("tool_choice")
    if not tools or choice == "none":
        return None
    named: dict[Any, dict[str, Any]] = {"auto": {"auto": {}}, "required": {"any": {}}}
    if isinstance(choice, Mapping):
        return {"tools": tools, "toolChoice": {"tool": {"name": _function(choice)["name"]}}}
    return {"tools": tools} | ({"toolChoice": named[choice]} if choice in named else {})


def _tool(tool: Any) -> dict[str, Any]:
    if isinstance(tool, Mapping) and "toolSpec" in tool:
        return dict(tool)
    function = _function(tool)
    spec = {"name": function["name"], "inputSchema": {"json": function.get("parameters") or {"type": "object"}}}
    return {"toolSpec": spec | ({"description": function["description"]} if function.get("description") else {})}


def _function(tool: Any) -> Mapping[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputInvalid("A tool needs [function] with a [name]: pass tools as OpenAI's chat completions take them.")
    return function


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        result = {"toolUseId": message.get("tool_call_id"), "content": [{"text": chat.text_in(content)}]}
        return {"role": "user", "content": [{"toolResult": result}]}
    if role not in ("user", "assistant"):
        raise InputInvalid(f"A message has the role [{role}]; Bedrock takes system, user, assistant and tool.")
    blocks = [{"text": content}] if isinstance(content, str) and content else []
    if isinstance(content, list):
        blocks = [_block(part) for part in content]
    return {"role": role, "content": blocks + [_tool_use(call) for call in message.get("tool_calls") or ()]}


def _block(part: Any) -> dict[str, Any]:
    if isinstance(part, Mapping) and part.get("type") == "text":
        return {"text": text_of(part, "text")}
    if isinstance(part, Mapping) and part.get("type") == "image_url":
        image = part.get("image_url")
        url = text_of(image, "url") if isinstance(image, Mapping) else str(image)
        return {"image": _image(url)}
    if isinstance(part, Mapping) and "type" not in part:
        return dict(part)  # a content block in Converse's own shape
    raise InputInvalid("A message has a part that is neither text nor image_url nor a content block of Converse.")


def _image(url: str) -> dict[str, Any]:
    match = _DATA_URL.fullmatch(url)
    try:
        base64.b64decode(match[2] if match else "", validate=True)
    except (ValueError, binascii.Error):
        match = None
    if match is None:
        raise InputInvalid("Bedrock takes images as data URLs (data:image/png;base64,...), not by address.")
    return {"format": "jpeg" if match[1] == "jpg" else match[1], "source": {"bytes": match[2]}}


def _tool_use(call: Any) -> dict[str, Any]:
    function = _function(call)
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except (orjson.JSONDecodeError, TypeError) as exc:
        raise InputInvalid("A tool call has arguments that are no JSON.") from exc
    return {"toolUse": {"toolUseId": call.get("id"), "name": function["name"], "input": arguments}}


def _alternating(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Converse wants the roles to take turns: neighbours of one role become one message."""
    talk: list[dict[str, Any]] = []
    for message in messages:
        if talk and talk[-1]["role"] == message["role"]:
            talk[-1]["content"] = talk[-1]["content"] + message["content"]
        else:
            talk.append(message)
    return talk


def read(document: Mapping[str, Any], model: str) -> Completion:
    """Read a whole answer; ``extra`` has Converse's own message, stop reason and metrics.

    Raises:
        Refused: MALFORMED ``no_choices``.
    """
    output = document.get("output")
    message = output.get("message") if isinstance(output, Mapping) else None
    blocks = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(blocks, list):
        raise Refused(Outcome(OutcomeKind.MALFORMED, "no_choices", "The answer has no message."))
    parts = [block for block in blocks if isinstance(block, Mapping)]
    text = "".join(text_of(block, "text") for block in parts)
    made: dict[str, Any] = {"role": "assistant", "content": text}
    if calls := [_call(block["toolUse"]) for block in parts if isinstance(block.get("toolUse"), Mapping)]:
        made["tool_calls"] = calls
    extra = {key: value for key, value in document.items() if value is not None}
    return Completion((Choice(0, text, finish_reason(document), made),), usage(document), model, extra)


def _call(use: Mapping[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(use.get("input") or {}).decode()
    return {
        "id": use.get("toolUseId"),
        "type": "function",
        "function": {"name": use.get("name"), "arguments": arguments},
    }


def finish_reason(document: Mapping[str, Any]) -> str | None:
    """OpenAI's word for ``stopReason``."""
    stated = text_of(document, "stopReason")
    return FINISH_REASONS.get(stated, stated or None)


def usage(document: Mapping[str, Any]) -> Usage:
    """Read ``usage``; zero where it is absent or no number."""
    stated = document.get("usage")
    counts = [stated.get(name) if isinstance(stated, Mapping) else 0 for name in ("inputTokens", "outputTokens")]
    prompt, completion = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return Usage(prompt, completion, prompt + completion, requests=1)
