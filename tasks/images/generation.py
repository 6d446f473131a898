"""One image generation from submit to files, over as many deliveries of its message as it takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import uuid4

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.errors import InferenceFailed, InputInvalid
from penstock.tasks.images.record import OperationRecord, RecordStore
from penstock.tasks.images.store import Downloader, ImageFolder, ObjectStore, keep_all
from penstock.tasks.request.caller import Caller, Exchange
from penstock.tasks.request.delivery import Delivery
from penstock.tasks.request.retry import NotAnswered, RetryState, failed
from penstock.tasks.services.base import ImageCall, ImageOperation, Refused, Service
from penstock.workers.lanes.decision import backoff
from penstock.workers.lanes.lane import HAND_BACK_S
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.lanes.tokens import byte_length
from penstock.workers.results.types import Effort, Failure, ImageResult
from penstock.workers.runtime import Runtime

logger = logging.getLogger(__name__)

Announce = Callable[[str, OperationRecord], Awaitable[None]]

#: Seconds between polls where the service names no pace (Azure's SDKs: 10), and the bounds of what it may name.
PACE_S, LEAST_S, MOST_S = 5.0, 0.1, 60.0
#: Seconds that a poll may take.
POLL_S = 30.0
#: Statuses by which a gateway says that it does not know what became of the request.
_GATEWAY = frozenset({502, 504, 520, 522, 524})
#: Answers to a poll that no further poll will change.
_FINAL = frozenset({OutcomeKind.REQUEST_REFUSED, OutcomeKind.INPUT_REFUSED, OutcomeKind.TOO_LARGE})


@dataclass(frozen=True)
class ImageOptions:
    """What to do with the images, and how long to wait for them (seconds after the submit)."""

    where: ImageFolder | ObjectStore | None
    delete: bool
    deadline_s: float


class _Superseded(Exception):
    """Another run of this task has submitted, or is doing so."""


class Generation:
    """One task's generation. ``run`` is called anew at each delivery of its message, and goes on from the record.

    Args:
        runtime: this process's.
        endpoint: whom to ask.
        delivery: the task's message.
        call: what to ask for.
        options: how long it may take, and where the images go.
    """

    def __init__(
        self, runtime: Runtime, endpoint: Endpoint, delivery: Delivery, call: ImageCall, options: ImageOptions
    ) -> None:
        self._endpoint, self._delivery, self._call, self._options = endpoint, delivery, call, options
        self._caller = Caller(runtime, endpoint, bulk=delivery.bulk)
        self._service: Service = self._caller.service
        self._record = RecordStore(runtime, delivery.task_id, runtime.settings.result_expires_s + options.deadline_s)
        self._lease = delivery.task_id or uuid4().hex
        self._retry = RetryState()

    async def run(self, announce: Announce) -> ImageResult:
        """Go on until the images are there, or the message is set aside.

        Raises:
            InferenceFailed: there will be none.
            Ignore, Reject: to Celery; the message comes back.
        """
        operation = await self._record.load()
        if operation is None:
            self._caller.effort = await self._delivery.noted() or Effort()
            operation = await self._submit()
            if operation.phase == "submitted":
                await announce("SUBMITTED", operation)
                await self._rest(operation, operation.pace_s)
        self._check(operation)
        while operation.phase == "submitted":
            delay_s = await self._poll(operation)
            if operation.phase == "submitted":
                await announce("RUNNING", operation)
                await self._rest(operation, delay_s)
        return await self._finish(operation)

    def _check(self, operation: OperationRecord) -> None:
        if operation.phase == "failed":
            raise InferenceFailed(*(operation.error or ("the operation failed",)))
        if operation.phase == "submitting":
            raise self._unknown("the worker ended before it had the answer", None, 1)

    # Submitting ---------------------------------------------------------------------------------------------------

    async def _submit(self) -> OperationRecord:
        """Submit, once; asked again only where the service has certainly not taken it."""
        operation = OperationRecord("submitting", 0.0)
        try:
            answer = await self._delivery.until_open(
                self._endpoint,
                work=lambda: self._caller.call(self._exchange(operation), self._retry),
                keep=lambda closed: self._delivery.note(self._caller.effort),
            )
        except _Superseded:
            return await self._record.load() or operation
        except InputInvalid:  # it cannot be written down, so it was not sent
            await self._withdraw()
            raise
        except NotAnswered as no:
            outcome = no.outcome
        else:
            return await self._submitted(operation, answer)
        raise failed(self._endpoint, outcome, self._caller.effort.requests)

    def _exchange(self, operation: OperationRecord) -> Exchange[ImageOperation]:
        size, lane = byte_length(self._call.prompt), self._caller.lane
        return Exchange(
            build=lambda authorised: self._service.image_request(authorised, self._call),
            read=lambda response: self._service.read_image(self._endpoint, self._call, response),
            tokens=lambda: lane.ratio.estimate(size),
            size=size,
            used=lambda answer: answer.usage.prompt_tokens,
            made=lambda answer: answer.usage.completion_tokens,
            before=lambda: self._claim(operation),
            refused=lambda outcome: self._refused(operation, outcome),
            operations=self._service.operations(self._endpoint),
            lease=self._lease,
            lease_s=self._options.deadline_s + 2 * MOST_S,
            wait_s=HAND_BACK_S,
        )

    async def _claim(self, operation: OperationRecord) -> None:
        """Write down that the submit may be on its way, unless another run of this task has."""
        operation.deadline = time.time() + self._options.deadline_s
        if not await self._record.claim(operation):
            raise _Superseded

    async def _refused(self, operation: OperationRecord, outcome: Outcome) -> None:
        """Take in a submit without a good answer: where it may have been taken it is not made again."""
        attempts = self._caller.effort.requests
        if outcome.kind is OutcomeKind.NO_ANSWER or outcome.status in _GATEWAY:
            await self._fail(operation, self._unknown(outcome.message, outcome.status, attempts))
        if outcome.kind is OutcomeKind.MALFORMED or outcome.code == "foreign_operation_location":
            await self._fail(operation, failed(self._endpoint, outcome, attempts))
        await self._withdraw()

    async def _withdraw(self) -> None:
        """The submit was certainly not taken: what was written down no longer holds."""
        await self._record.forget()
        await self._release()

    async def _submitted(self, operation: OperationRecord, answer: ImageOperation) -> OperationRecord:
        now = time.time()
        operation.effort = self._caller.effort
        operation.operation_id, operation.poll_url = answer.operation_id, answer.poll_url
        if answer.poll_url is None or answer.state in ("SUCCEEDED", "FAILED"):
            await self._take(operation, answer)
            return operation
        operation.phase = "submitted"
        operation.times, operation.pace_s = {"SUBMITTED": now}, _pace(answer.delay_s)
        await self._record.save(operation)
        return operation

    def _unknown(self, why: str, status: int | None, attempts: int) -> InferenceFailed:
        message = (
            f"[{self._endpoint.inference_id}] nobody knows whether the service took the request ({why.rstrip('. ')}); "
            "it is not sent again, so that nothing is paid twice. Look at the service whether the images were made, "
            "and call again if not; if it is slow to answer, raise service_settings.timeout_s"
        )
        return InferenceFailed(message, "submit_unknown", status, attempts)

    # Looking after it -----------------------------------------------------------------------------------------------

    async def _poll(self, operation: OperationRecord) -> float:
        """Look where the operation stands. Returns seconds until the next look."""
        operation.polls += 1
        operation.effort += Effort(requests=1)
        url = operation.poll_url or ""
        try:
            request = self._service.poll_request(await self._caller.authorised(), url)
            response = await self._caller.http.exchange(request, min(self._endpoint.timeout_s, POLL_S))
            answer = self._service.read_poll(self._endpoint, url, response)
        except Refused as refused:
            return await self._trouble(operation, refused.outcome)
        operation.troubles = 0
        if answer.state in ("SUCCEEDED", "FAILED"):
            await self._take(operation, answer)
            return 0.0
        operation.times.setdefault("RUNNING", time.time())
        await self._check_deadline(operation, "it still runs")
        return _pace(answer.delay_s)

    async def _trouble(self, operation: OperationRecord, outcome: Outcome) -> float:
        """A poll without a good answer: the images may be there all the same, so it is looked again in time."""
        operation.troubles += 1
        if outcome.kind in _FINAL:
            await self._fail(operation, failed(self._endpoint, outcome, operation.effort.requests))
        logger.warning("operation %s: no state (%s %s)", operation.operation_id, outcome.code, outcome.message)
        await self._check_deadline(operation, f"its state could not be read: {outcome.message}")
        return _pace(1.0 + backoff(operation.troubles) if outcome.delay_s is None else outcome.delay_s)

    async def _check_deadline(self, operation: OperationRecord, what: str) -> None:
        if time.time() >= operation.deadline:
            message = (
                f"[{self._endpoint.inference_id}] operation {operation.operation_id} has no images after "
                f"{self._options.deadline_s:g} s ({what.rstrip('. ')}); call again with a longer deadline_s, and see "
                "whether the service is well"
            )
            error = InferenceFailed(message, "deadline_exceeded", None, operation.effort.requests)
            await self._fail(operation, error)

    async def _rest(self, operation: OperationRecord, delay_s: float) -> None:
        """Set the message aside until the next look, or the deadline if that is sooner."""
        delay_s = max(LEAST_S, min(delay_s, operation.deadline - time.time() + 0.05))
        await self._record.save(operation)
        await self._delivery.look_again(self._endpoint, delay_s)

    # The end --------------------------------------------------------------------------------------------------------

    async def _take(self, operation: OperationRecord, answer: ImageOperation) -> None:
        """Take in the end of an operation."""
        if answer.state == "FAILED":
            outcome = answer.outcome or Outcome(OutcomeKind.SERVER_ERROR, "operation_failed", "The operation failed.")
            await self._fail(operation, failed(self._endpoint, outcome, operation.effort.requests))
        operation.phase = "answered"
        operation.times["SUCCEEDED"] = time.time()
        operation.result = ImageResult(
            answer.urls,
            answer.b64,
            answer.operation_id or operation.operation_id,
            answer.revised_prompts,
            failures=tuple(Failure(index, code, message, 1) for index, code, message in answer.item_errors),
            usage=answer.usage,
        )
        await self._record.save(operation)
        await self._release()

    async def _finish(self, operation: OperationRecord) -> ImageResult:
        """Keep the images, delete them at the service, each if wished."""
        result = operation.result
        assert result is not None
        if operation.phase == "answered":
            if self._options.where is not None:
                own = self._service.image_request(self._endpoint, self._call).url
                downloader = Downloader(self._caller.http, own, self._endpoint.timeout_s)
                result = await keep_all(result, self._options.where, self._lease, downloader)
            result = replace(result, effort=operation.effort, times=operation.times)
            operation.result, operation.phase = result, "done"
            await self._record.save(operation)
        # Not before the result is in safety; and not if an image is still at the service alone.
        if self._options.delete and operation.poll_url and len(result.files) == len(result.urls):
            await self._delete(operation)
        return result

    async def _delete(self, operation: OperationRecord) -> None:
        """Delete the operation at the service. That it could not be is no failure of the call: it expires in a day."""
        for attempt in (1, 2, 3):
            try:
                known = await self._caller.authorised()
                request = self._service.delete_request(known, operation.poll_url or "")
                if request is None:
                    return
                response = await self._caller.http.exchange(request, min(self._endpoint.timeout_s, POLL_S))
                if response.status < 300 or response.status in (404, 410):
                    return
                why = f"HTTP {response.status}"
            except Refused as refused:
                why = refused.outcome.message
            await asyncio.sleep(backoff(attempt))
        logger.warning("operation %s could not be deleted (%s)", operation.operation_id, why)

    async def _fail(self, operation: OperationRecord, error: InferenceFailed) -> None:
        """End it with an error, the same however often the message is delivered again."""
        operation.phase, operation.error = "failed", list(error.args)
        await self._record.save(operation)
        await self._release()
        raise error

    async def _release(self) -> None:
        if self._service.operations(self._endpoint):
            await self._caller.lane.release(self._lease)


def _pace(delay_s: float | None) -> float:
    return PACE_S if delay_s is None else min(MOST_S, max(LEAST_S, delay_s))
