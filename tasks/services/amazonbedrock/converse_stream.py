"""ConverseStream: AWS event streams, binary and with checksums, to deltas. Read by botocore's own parser, an extra.

Source: Amazon Bedrock API reference, ConverseStream; botocore's model of bedrock-runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from penstock.config.errors import ConfigurationError
from penstock.tasks.services.amazonbedrock.converse import finish_reason, usage
from penstock.tasks.services.base import Completion, Delta, Refused, StreamReader
from penstock.tasks.services.wire.answers import text_of
from penstock.tasks.services.wire.streams import Collector, cut
from penstock.workers.lanes.outcome import Outcome, OutcomeKind


class ConverseStream(StreamReader):
    """Reads an AWS event stream (``application/vnd.amazon.eventstream``), complete with ``messageStop``.

    Args:
        model: for the deltas; the stream does not name it.
        refuse: names an exception that comes as an event, from its type and its body.
    """

    def __init__(self, model: str, refuse: Callable[[str, bytes], Outcome]) -> None:
        try:
            from botocore.eventstream import EventStreamBuffer, ParserError
        except ImportError as exc:
            raise ConfigurationError(
                "Streams of Amazon Bedrock are read by botocore, which is not installed: "
                "pip install 'penstock[bedrock]'."
            ) from exc
        self._buffer, self._faults = EventStreamBuffer(), ParserError
        self._refuse = refuse
        self._collector = Collector()
        self._collector.model = model
        self._stopped = False

    def feed(self, data: bytes) -> Iterator[Delta]:
        """Yield what ``data`` completes. Raises Refused."""
        self._buffer.add_data(data)
        while (event := self._next()) is not None:
            kind, document = event
            if delta := self._read(kind, document):
                yield delta

    def close(self) -> None:
        """Raise Refused (``stream_cut``) unless ``messageStop`` has come."""
        if not self._stopped:
            raise cut("messageStop")

    def completion(self) -> Completion:
        """Return what has come so far as one answer."""
        return self._collector.completion()

    def _next(self) -> tuple[str, Mapping[str, Any]] | None:
        try:
            message = next(self._buffer, None)
        except self._faults as exc:
            text = "The event stream is damaged (checksum or lengths)."
            raise Refused(Outcome(OutcomeKind.MALFORMED, "bad_event_stream", text)) from exc
        if message is None:
            return None
        headers = message.headers
        kind = headers.get(":exception-type") or headers.get(":error-code")
        if kind:
            raise Refused(self._refuse(str(kind), message.payload))
        try:
            document = orjson.loads(message.payload or b"{}")
        except orjson.JSONDecodeError as exc:
            raise Refused(Outcome(OutcomeKind.MALFORMED, "not_json", "An event of the stream is no JSON.")) from exc
        return str(headers.get(":event-type")), document if isinstance(document, Mapping) else {}

    def _read(self, kind: str, document: Mapping[str, Any]) -> Delta | None:
        match kind:
            case "contentBlockDelta" | "contentBlockStart":
                return self._delta(document)
            case "messageStop":
                self._stopped = True
                return self._add(
                    Delta(finish_reason=finish_reason(document), model=self._collector.model, raw=document)
                )
            case "metadata":
                self._collector.usage = usage(document)
                return Delta(usage=self._collector.usage, model=self._collector.model, raw=document, done=self._stopped)
        return None

    def _delta(self, document: Mapping[str, Any]) -> Delta | None:
        part = document.get("delta") or document.get("start")
        if not isinstance(part, Mapping):
            return None
        message: dict[str, Any] = {"role": "assistant"}
        text = text_of(part, "text")
        if text:
            message["content"] = text
        if isinstance(use := part.get("toolUse"), Mapping):
            message["tool_calls"] = [_call_delta(use, document.get("contentBlockIndex"))]
        return self._add(Delta(text=text, model=self._collector.model, raw=document), message)

    def _add(self, delta: Delta, message: Mapping[str, Any] | None = None) -> Delta:
        self._collector.add(delta, message or {})
        return delta


def _call_delta(use: Mapping[str, Any], index: Any) -> dict[str, Any]:
    """A tool call's start (id and name) or a piece of its arguments, in OpenAI's shape."""
    part: dict[str, Any] = {"index": index, "type": "function"}
    if "toolUseId" in use:
        return part | {"id": use["toolUseId"], "function": {"name": use.get("name"), "arguments": ""}}
    return part | {"function": {"arguments": text_of(use, "input")}}
