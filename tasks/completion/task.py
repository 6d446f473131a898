"""What carries out ``complete``: a prompt or messages to an answer, whole or streamed, through the endpoint's lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType, load_service
from penstock.config.errors import CutStream, InputInvalid, PenstockError
from penstock.config.names import stream_key
from penstock.tasks.completion.answer import AnswerReader
from penstock.tasks.completion.charge import Charge
from penstock.tasks.completion.publisher import StreamPublisher
from penstock.tasks.request.caller import Caller, Exchange
from penstock.tasks.request.delivery import Delivery
from penstock.tasks.request.endpoints import endpoint_for
from penstock.tasks.request.retry import NotAnswered, failed
from penstock.tasks.services.base import CompleteCall, Completion
from penstock.workers.pool.loop import wait
from penstock.workers.results.mapping import text_of
from penstock.workers.results.types import CompleteResult
from penstock.workers.runtime import Runtime, runtime

COMPLETION = (TaskType.COMPLETION, TaskType.CHAT_COMPLETION)


def complete(
    self: Any, prompt_or_messages: Any, endpoint_id: str, stream: bool | None = None, **overrides: Any
) -> CompleteResult:
    """Carry out ``penstock.tasks.complete``, where its arguments and errors are told."""
    return wait(_complete(self, prompt_or_messages, endpoint_id, stream, overrides))


async def _complete(
    task: Any, given: Any, endpoint_id: str, stream: bool | None, overrides: Mapping[str, Any]
) -> CompleteResult:
    shared = runtime()
    delivery = Delivery(shared, task.request)
    publisher = StreamPublisher(None)
    try:
        endpoint = await endpoint_for("complete", COMPLETION, endpoint_id, shared)
        streamed = _streams(endpoint, stream, delivery)
        if streamed and delivery.task_id:
            key = stream_key(shared.settings.key_prefix, delivery.task_id)
            publisher = StreamPublisher(shared.async_client(), key, shared.settings.result_expires_s)
        call = prepare(endpoint, given, overrides, stream=streamed)
        result = await _answered(shared, endpoint, call, delivery, publisher)
    except PenstockError as exc:
        await publisher.fail(exc)
        raise
    await publisher.end(result)
    return result


async def _answered(
    shared: Runtime, endpoint: Endpoint, call: CompleteCall, delivery: Delivery, publisher: StreamPublisher
) -> CompleteResult:
    """Ask, and ask again while the lane opens and closes; return the answer with what it all cost."""
    caller = Caller(shared, endpoint, bulk=delivery.bulk)
    caller.effort = await delivery.earlier()
    answer = await delivery.until_open(
        endpoint, work=lambda: _ask(caller, call, publisher), keep=lambda closed: delivery.note(caller.effort)
    )
    return CompleteResult(answer.choices, answer.usage, answer.model, caller.effort, answer.extra)


async def _ask(caller: Caller, call: CompleteCall, publisher: StreamPublisher) -> Completion:
    endpoint, service = caller.endpoint, caller.service
    reader = AnswerReader(caller.http, service, endpoint, call, publisher)
    charge = Charge(call, caller.lane.stats)
    exchange = Exchange(
        build=lambda authorised: service.complete_request(authorised, call),
        read=reader.read,
        tokens=charge.estimate,
        size=charge.size,
        used=charge.used,
        made=charge.made,
        send=reader.send,
    )
    try:
        return await caller.call(exchange)
    except NotAnswered as no:
        error = failed(endpoint, no.outcome, caller.effort.requests)
    if not reader.begun:
        raise error
    raise CutStream(str(error), error.code, error.status, error.attempts, reader.partial)


def _streams(endpoint: Endpoint, stream: bool | None, delivery: Delivery) -> bool:
    if stream is None:
        return endpoint.task_type is TaskType.CHAT_COMPLETION and not delivery.direct
    return stream


def prepare(endpoint: Endpoint, given: Any, overrides: Mapping[str, Any], *, stream: bool = False) -> CompleteCall:
    """Return what is asked of the service.

    Args:
        endpoint: its task settings hold where the call says nothing.
        given: a text, messages, prompts, or a completion's result.
        overrides: what the service declares as task settings overrides these; the rest are the vendor's parameters.
        stream: whether to ask for a stream.

    Raises:
        InputInvalid: ``given`` is none of these.
    """
    given = text_of(given)
    settings, parameters = divide(endpoint, overrides)
    common: dict[str, Any] = {"stream": stream, "task_settings": settings, "parameters": parameters}
    if isinstance(given, str) and given:
        return CompleteCall(prompt=given, **common)
    if isinstance(given, Sequence) and given and not isinstance(given, str | bytes):
        given = [text_of(item) for item in given]
        if all(isinstance(item, Mapping) for item in given):
            return CompleteCall(messages=given, **common)
        if not any(isinstance(item, Mapping) for item in given):
            return CompleteCall(prompt=given, **common)
    raise InputInvalid(
        'a completion needs a text that is not empty, a list of messages such as {"role": "user", "content": "..."}, '
        f"or a list of prompts; got {_named(given)}"
    )


def divide(endpoint: Endpoint, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a call's task settings, over the endpoint's own, and the parameters that are the vendor's."""
    declared = {setting.name for setting in load_service(endpoint.service).spec.tasks[endpoint.task_type].task_settings}
    own = {name: value for name, value in overrides.items() if name in declared}
    rest = {name: value for name, value in overrides.items() if name not in declared}
    return {**endpoint.task_settings, **own}, rest


def _named(given: Any) -> str:
    if isinstance(given, str | Sequence) and not given:
        return "nothing"
    return f"a {type(given).__name__}" if not isinstance(given, Sequence) else "a mixed list"
