"""Streamed chat and legacy completions in OpenAI's dialect: server-sent events to deltas, and deltas to an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from penstock.tasks.services.base import Completion, Delta, Refused, Response, StreamReader
from penstock.tasks.services.wire import answers, chat, refusals
from penstock.tasks.services.wire.errors import error_of
from penstock.tasks.services.wire.sse import Event, SseDecoder
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Choice, Usage

END = "[DONE]"

_ONCE = frozenset({"role", "id", "type", "name"})
"""String fields that come whole; every other string comes in pieces."""


def cut(what: str = "data: [DONE]") -> Refused:
    """The refusal of a stream that ended without its end mark: what came is no answer, however good it looks."""
    message = f"The stream ended before its end mark ({what}); what had come is incomplete."
    return Refused(Outcome(OutcomeKind.NO_ANSWER, "stream_cut", message))


class Collector:
    """Puts deltas together into the answer that would have come without streaming."""

    def __init__(self) -> None:
        self.model = ""
        self.usage: Usage | None = None
        self.extra: dict[str, Any] = {}
        self._messages: dict[int, dict[str, Any]] = {}
        self._texts: dict[int, list[str]] = {}
        self._reasons: dict[int, str] = {}
        self._rest: dict[int, dict[str, Any]] = {}

    def add(self, delta: Delta, message: Mapping[str, Any], rest: Mapping[str, Any] | None = None) -> None:
        """Add a piece: its text, its part of the message, and other fields of its choice."""
        self._texts.setdefault(delta.index, []).append(delta.text)
        _merge(self._messages.setdefault(delta.index, {}), message)
        if delta.finish_reason:
            self._reasons[delta.index] = delta.finish_reason
        if rest:
            self._rest.setdefault(delta.index, {}).update(rest)

    def completion(self) -> Completion:
        """Return what has come so far."""
        choices = tuple(
            Choice(index, "".join(self._texts[index]), self._reasons.get(index), _finished(self._messages[index]))
            for index in sorted(self._texts)
        )
        extra = dict(self.extra)
        if self._rest:
            extra["choices"] = [self._rest.get(choice.index, {}) for choice in choices]
        return Completion(choices, self.usage or Usage(requests=1), self.model, extra)


class ChatStream(StreamReader):
    """Reads a stream of chat, on-your-data or legacy chunks.

    Complete only with ``data: [DONE]``, or with the message ``[DONE]`` by which chat on your data ends: a
    ``finish_reason`` is not enough, for usage and further choices may follow it.
    """

    def __init__(self) -> None:
        self._decoder = SseDecoder()
        self._collector = Collector()
        self._done = False

    def feed(self, data: bytes) -> Iterator[Delta]:
        """Yield what ``data`` completes.

        Raises:
            Refused: an error event, or MALFORMED ``not_json``.
        """
        for event in self._decoder.feed(data):
            yield from self._read(event)

    def close(self) -> None:
        """Raise Refused (``stream_cut``) unless the end mark has come."""
        last = self._decoder.flush()
        if last is not None and not self._done and last.data.strip() == END:
            self._done = True
        if not self._done:
            raise cut()

    def completion(self) -> Completion:
        """Return what has come so far as one answer."""
        return self._collector.completion()

    def _read(self, event: Event) -> Iterator[Delta]:
        if self._done:
            return
        if event.data.strip().startswith(END):
            yield self._end()
            return
        chunk = _chunk(event)
        self._note(chunk)
        for choice in _choices(chunk):
            for part in _parts(choice):
                if _is_end(part):
                    yield self._end()
                    return
                yield self._delta(choice, part, chunk)
        if isinstance(chunk.get("usage"), Mapping):
            self._collector.usage = answers.usage(chunk)
            yield Delta(usage=self._collector.usage, model=self._collector.model, raw=chunk)

    def _end(self) -> Delta:
        self._done = True
        return Delta(done=True, model=self._collector.model)

    def _note(self, chunk: Mapping[str, Any]) -> None:
        self._collector.model = answers.text_of(chunk, "model") or self._collector.model
        self._collector.extra |= chat.extras({k: v for k, v in chunk.items() if k != "messages"}, ())

    def _delta(self, choice: Mapping[str, Any], part: Mapping[str, Any], chunk: Mapping[str, Any]) -> Delta:
        index = choice.get("index")
        reason = choice.get("finish_reason")
        delta = Delta(
            text=chat.text_in(part.get("content")),
            index=index if isinstance(index, int) else 0,
            finish_reason=reason if isinstance(reason, str) else None,
            model=self._collector.model,
            raw=chunk,
        )
        rest = chat.extras({}, [choice]).get("choices")
        self._collector.add(delta, part, rest[0] if rest else None)
        return delta


def _chunk(event: Event) -> Mapping[str, Any]:
    try:
        chunk = orjson.loads(event.data)
    except orjson.JSONDecodeError as exc:
        raise Refused(
            Outcome(OutcomeKind.MALFORMED, "not_json", "An event of the stream is no JSON, or is cut short.")
        ) from exc
    if not isinstance(chunk, Mapping):
        raise Refused(Outcome(OutcomeKind.MALFORMED, "not_an_object", "An event of the stream is JSON, but no object."))
    if chunk.get("error") or event.event == "error":
        raise Refused(failure(chunk))
    return chunk


def failure(document: Mapping[str, Any]) -> Outcome:
    """The outcome of an error that came in mid-stream, after a 200."""
    error = error_of(document)
    named = refusals.name(error.status, error)
    return replace(refusals.outcome(error, Response(200), named=named), status=error.status)


def _choices(chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The chunk's choices; chat on your data may send its messages without."""
    choices = chunk.get("choices")
    if isinstance(choices, list):
        return [choice for choice in choices if isinstance(choice, Mapping)]
    return [chunk] if isinstance(chunk.get("messages"), list) else []


def _parts(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a message in a choice: its delta, its messages' deltas (without the tool's), or its text."""
    if isinstance(choice.get("messages"), list):
        deltas = [entry.get("delta") | _end_turn(entry) for entry in choice["messages"] if _has_delta(entry)]
        return [delta for delta in deltas if delta.get("role") != "tool"]
    if isinstance(choice.get("delta"), Mapping):
        return [choice["delta"]]
    if isinstance(choice.get("text"), str):
        return [{"content": choice["text"]}]
    return [{}] if choice.get("finish_reason") else []


def _has_delta(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("delta"), Mapping)


def _end_turn(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"end_turn": True} if entry.get("end_turn") else {}


def _is_end(part: Mapping[str, Any]) -> bool:
    return part.get("content") == END and bool(part.get("end_turn"))


def _merge(target: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if key in ("tool_calls",) and isinstance(value, list):
            _merge_calls(target.setdefault(key, {}), value)
        elif isinstance(value, Mapping):
            _merge(target.setdefault(key, {}), value)
        elif isinstance(value, str) and isinstance(target.get(key), str) and key not in _ONCE:
            target[key] += value
        elif value is not None and not (value == "" and target.get(key)):
            target[key] = value


def _merge_calls(calls: dict[int, dict[str, Any]], parts: list[Any]) -> None:
    """Tool calls come in pieces under their own index."""
    for position, part in enumerate(parts):
        if isinstance(part, Mapping):
            index = part.get("index")
            call = calls.setdefault(index if isinstance(index, int) else position, {})
            _merge(call, {key: value for key, value in part.items() if key != "index"})


def _finished(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return message | {"tool_calls": [calls[index] for index in sorted(calls)]} if calls else dict(message)
