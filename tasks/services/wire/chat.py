"""Chat completions and legacy completions in OpenAI's dialect: bodies and whole answers. Streams are in ``streams``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.config.errors import InputInvalid
from penstock.tasks.services.base import CompleteCall, Completion, Refused, Response
from penstock.tasks.services.wire import answers
from penstock.tasks.services.wire.embeddings import fields
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Choice

_KNOWN = frozenset({"choices", "model", "object"})
_CHOICE = frozenset({"index", "message", "messages", "text", "finish_reason", "delta"})


def wants_legacy(call: CompleteCall) -> bool:
    """Whether only the legacy API can express the call: it takes a list of prompts (or of tokens)."""
    return call.messages is None and call.prompt is not None and not isinstance(call.prompt, str)


def messages_of(call: CompleteCall) -> list[Mapping[str, Any]]:
    """The call's messages; a prompt is the user's one message.

    Raises:
        InputInvalid: neither messages nor a prompt.
    """
    if call.messages is not None:
        return list(call.messages)
    if not isinstance(call.prompt, str):
        raise InputInvalid("A chat completion needs messages, or a prompt that is one string.")
    return [{"role": "user", "content": call.prompt}]


def chat_body(call: CompleteCall, base: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat completion: ``base`` (the model), messages, task settings, the call's own parameters."""
    return dict(base) | {"messages": messages_of(call)} | _parameters(call)


def legacy_body(call: CompleteCall, base: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a legacy completion.

    Raises:
        InputInvalid: the call has messages and no prompt.
    """
    if call.prompt is None:
        raise InputInvalid(
            "This endpoint's url is that of legacy completions, which take a prompt and no messages. "
            "Pass prompt=..., or set the endpoint's url to one that ends in /chat/completions."
        )
    prompt = call.prompt if isinstance(call.prompt, str) else list(call.prompt)
    return dict(base) | {"prompt": prompt} | _parameters(call)


def _parameters(call: CompleteCall) -> dict[str, Any]:
    given = fields(call.task_settings) | dict(call.parameters)
    given.pop("stream", None)  # whether to stream is the call's, for the reader of the answer must know
    if not call.stream:
        given.pop("stream_options", None)
        return given
    return {"stream": True, "stream_options": {"include_usage": True}} | given


def read(response: Response, call: CompleteCall, refuse: answers.Refuse) -> Completion:
    """Read a whole answer: ``message`` (chat), ``messages`` (chat on your data) or ``text`` (legacy) of each choice.

    Raises:
        Refused: by status, or MALFORMED ``no_choices``, ``bad_choice``, ``wrong_count``.
    """
    document = answers.read_json(response, refuse)
    found = document.get("choices")
    if not isinstance(found, list) or not found:
        raise _malformed("no_choices", "The answer has no choices.")
    wanted = _wanted(call)
    if wanted is not None and len(found) != wanted:
        raise _malformed("wrong_count", f"Asked for {wanted} completions, the answer has {len(found)}.")
    choices = sorted((_choice(at, item) for at, item in enumerate(found)), key=lambda choice: choice.index)
    return Completion(
        tuple(choices), answers.usage(document), answers.text_of(document, "model"), extras(document, found)
    )


def extras(document: Mapping[str, Any], found: Sequence[Any]) -> dict[str, Any]:
    """What an answer says beyond choices and model: id, raw usage, filter results; per choice its logprobs and such."""
    extra = {key: value for key, value in document.items() if key not in _KNOWN and value is not None}
    rest = [
        {key: value for key, value in choice.items() if key not in _CHOICE and value is not None}
        for choice in found
        if isinstance(choice, Mapping)
    ]
    conversations = [choice["messages"] for choice in found if isinstance(choice, Mapping) and choice.get("messages")]
    if any(rest):
        extra["choices"] = rest
    if conversations:
        extra["messages"] = conversations[0]
    return extra


def text_in(content: Any) -> str:
    """The text of a message's ``content``: a string, or a list of parts of which some are text."""
    if isinstance(content, list):
        return "".join(answers.text_of(part, "text") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _wanted(call: CompleteCall) -> int | None:
    """How many choices a list of prompts must give; None where the server may decide."""
    if not wants_legacy(call) or not call.prompt or not all(isinstance(item, str) for item in call.prompt):
        return None
    n = call.parameters.get("n", 1)
    return len(call.prompt) * n if isinstance(n, int) else None


def _choice(position: int, item: Any) -> Choice:
    if not isinstance(item, Mapping):
        raise _malformed("bad_choice", "A choice of the answer is no object.")
    index = item.get("index")
    index = index if isinstance(index, int) else position
    reason = item.get("finish_reason")
    message = _message(item)
    text = item["text"] if isinstance(item.get("text"), str) else text_in(message.get("content"))
    return Choice(index, text, reason if isinstance(reason, str) else None, message)


def _message(item: Mapping[str, Any]) -> Mapping[str, Any]:
    message = item.get("message")
    caller = item.get("messages")
    if isinstance(caller, list):  # chat on your data: what was looked up, then what the assistant says of it
        words = [entry for entry in caller if isinstance(entry, Mapping) and entry.get("role") == "assistant"]
        message = words[-1] if words else None
    if isinstance(message, Mapping):
        return message
    if isinstance(item.get("text"), str):
        return {}
    if item.get("finish_reason") == "content_filter":  # Azure leaves the message out of what it filtered
        return {}
    raise _malformed("bad_choice", "A choice of the answer has no message and no text.")


def _malformed(code: str, message: str) -> Refused:
    return Refused(Outcome(OutcomeKind.MALFORMED, code, message))
