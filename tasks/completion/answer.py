"""Reads the answer to a completion as it comes, and publishes it; the same answer then comes whole to the caller."""

from __future__ import annotations

from dataclasses import replace

from penstock.config.endpoints.endpoint import Endpoint
from penstock.tasks.completion.publisher import StreamPublisher
from penstock.tasks.request.http import HttpClient
from penstock.tasks.services.base import CompleteCall, Completion, Refused, Request, Response, Service, StreamReader
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

_WHOLE = ("json", "html")
_PARKING = frozenset({OutcomeKind.QUOTA_EXHAUSTED, OutcomeKind.UNAUTHORIZED, OutcomeKind.NOT_FOUND})


class AnswerReader:
    """One call's answer: ``send`` and ``read`` are what a ``Caller`` asks for.

    ``begun`` says that a part of a streamed answer has come: after that nothing is tried again.
    """

    def __init__(
        self, http: HttpClient, service: Service, endpoint: Endpoint, call: CompleteCall, publisher: StreamPublisher
    ) -> None:
        self._http, self._service, self._endpoint = http, service, endpoint
        self._call, self._publisher = call, publisher
        self._reader: StreamReader | None = None
        self.begun = False

    @property
    def partial(self) -> str:
        """The text of the first choice that had come."""
        choices = self._reader.completion().choices if self._reader else ()
        return choices[0].text if choices else ""

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send the request; read the answer as it comes if it is a stream.

        Raises:
            Refused: as ``exchange``; where a part of a stream had come, with ``should_retry`` false.
        """
        self._reader = None
        if not self._call.stream:
            return await self._http.exchange(request, timeout_s)
        async with self._http.stream(request, timeout_s) as streamed:
            kind = streamed.headers.get("content-type", "").lower()
            if not 200 <= streamed.status < 300 or any(word in kind for word in _WHOLE):
                return await streamed.whole()
            self._reader = self._service.stream_reader(self._endpoint, self._call)
            try:
                async for part in streamed.parts:
                    self.begun = True
                    for delta in self._reader.feed(part):
                        if not delta.done:
                            await self._publisher.put(delta)
                self._reader.close()
            except Refused as refused:
                raise Refused(self._final(refused.outcome)) from refused
            return Response(streamed.status, streamed.headers)

    def read(self, response: Response) -> Completion:
        """Return the answer, checked. Raises Refused."""
        if self._reader is None:
            return self._service.read_completion(self._endpoint, self._call, response)
        completion = self._reader.completion()
        if not completion.choices:
            raise Refused(self._final(Outcome(OutcomeKind.MALFORMED, "no_choices", "The stream had no choices.")))
        return completion

    def _final(self, outcome: Outcome) -> Outcome:
        """After the first byte nothing is tried again, for it may be billed, and may have been read."""
        if not self.begun:
            return outcome
        outcome_kind = OutcomeKind.SERVER_ERROR if outcome.kind in _PARKING else outcome.kind
        return replace(outcome, kind=outcome_kind, should_retry=False)
