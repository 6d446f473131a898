"""What stands in a task's stream in Redis, and how a reader makes deltas of it. Pure: no I/O, no clock.

Entries have a kind ``k``, the run ``r`` that wrote them, and by kind: ``b`` begins a run; ``d`` is a delta with its
number ``n`` and its JSON ``v``; ``e`` ends a run of ``n`` deltas; ``f`` ends it with an error, ``v`` (empty where the
result back end alone knows it). A run is one worker's attempt at the task. When a worker has died and another begins
anew, readers learn so by a ``restart``, and whatever the old run may still write is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from penstock.config import errors
from penstock.config.errors import PenstockError
from penstock.tasks.services.base import Delta
from penstock.workers.results.types import CompleteResult, Usage

Fields = dict[Any, Any]
StreamEntry = tuple[bytes, Mapping[bytes, bytes]]

_TEXT_ONLY = frozenset({"index", "delta", "text", "finish_reason", "logprobs", "content_filter_results"})


def begin(run: str) -> Fields:
    """The entry that begins a run."""
    return {"k": "b", "r": run}


def delta_entry(run: str, number: int, delta: Delta) -> Fields:
    """The entry of a delta. What the provider sent goes with it only where it says more than the text."""
    usage = list(vars(delta.usage).values()) if delta.usage else None
    raw = delta.raw if _adds_to_text(delta) else None
    value = [delta.text, delta.index, delta.finish_reason, usage, delta.model, raw]
    return {"k": "d", "r": run, "n": number, "v": orjson.dumps(value, default=str)}


def end(run: str, count: int) -> Fields:
    """The entry that ends a run of ``count`` deltas."""
    return {"k": "e", "r": run, "n": count}


def failure(run: str, error: BaseException) -> Fields:
    """The entry that ends a run with an error; one that is not ours is left to the result back end."""
    known = isinstance(error, PenstockError) and getattr(errors, type(error).__name__, None) is type(error)
    value = orjson.dumps([type(error).__name__, list(error.args)], default=str) if known else b""
    return {"k": "f", "r": run, "v": value}


def _adds_to_text(delta: Delta) -> bool:
    if not delta.text:
        return bool(delta.raw)
    choices = delta.raw.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, Mapping):
        return bool(delta.raw)
    return bool(first.get("logprobs") or not first.keys() <= _TEXT_ONLY)


class Reader:
    """Makes deltas of the entries of one task's stream.

    ``done`` when the stream has ended; ``lost`` when something of it is missing, so that only the task's result can
    give the rest; ``position`` is the last entry's id.
    """

    def __init__(self) -> None:
        self.position: bytes = b"0"
        self.done = self.lost = False
        self._run: bytes | None = None
        self._next = 0
        self._texts: dict[int, str] = {}
        self._yielded = False

    def take(self, entries: Iterable[StreamEntry]) -> Iterator[Delta]:
        """Yield the deltas in ``entries``.

        Raises:
            PenstockError: the task's own, in place of the end.
        """
        for position, fields in entries:
            self.position = position
            if self.done:
                return
            kind, run = fields[b"k"], fields[b"r"]
            if kind == b"b":
                yield from self._restart()
                self._run, self._next, self.lost = run, 0, False
            elif self._run is None:
                self.lost = True  # its beginning has been cut off
            elif run == self._run:
                yield from self._of_run(kind, fields)

    def heal(self, result: CompleteResult) -> Iterator[Delta]:
        """Yield what was missing, from the task's result: the stream was cut off at its head, has expired, or never
        was."""
        self.done = True
        texts = {choice.index: choice.text for choice in result.choices}
        if any(not text.startswith(self._texts.get(index, "")) for index, text in texts.items()):
            yield from self._restart()
        for choice in result.choices:
            rest = choice.text[len(self._texts.get(choice.index, "")) :]
            raw = {"choices": [{"index": choice.index, "message": dict(choice.message)}]} if choice.tool_calls else {}
            yield Delta(rest, choice.index, choice.finish_reason, model=result.model, raw=raw)
        if result.usage.total_tokens:
            yield Delta(usage=result.usage, model=result.model)

    def _restart(self) -> Iterator[Delta]:
        if self._yielded:
            yield Delta(restart=True)
        self._yielded = False
        self._texts.clear()

    def _of_run(self, kind: bytes, fields: Mapping[bytes, bytes]) -> Iterator[Delta]:
        if kind == b"f":
            if error := _error(fields[b"v"]):
                raise error
            self.lost = True
            return
        if int(fields[b"n"]) != self._next:
            self.lost = True  # the worker could not reach the broker for a while
        if self.lost:
            return
        if kind == b"e":
            self.done = True
            return
        self._next += 1
        delta = _delta(fields[b"v"])
        self._texts[delta.index] = self._texts.get(delta.index, "") + delta.text
        self._yielded = True
        yield delta


def _delta(value: bytes) -> Delta:
    text, index, reason, usage, model, raw = orjson.loads(value)
    return Delta(text, index, reason, Usage(*usage) if usage else None, model, raw or {})


def _error(value: bytes) -> PenstockError | None:
    if not value:
        return None
    name, args = orjson.loads(value)
    kind = getattr(errors, name, None)
    if not isinstance(kind, type) or not issubclass(kind, PenstockError):
        return None
    error: PenstockError = kind(*args)
    return error


def deltas_of(result: CompleteResult) -> list[Delta]:
    """Return an answer that came whole as the deltas of a stream."""
    deltas = list(Reader().heal(result))
    return [replace(delta, restart=False) for delta in deltas]
