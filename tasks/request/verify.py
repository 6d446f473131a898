"""One tiny live call to an endpoint: does it answer, with which model, vectors of which length, how fast.

For embeddings one short text, for completions one token. An image costs too much to try: there the service is asked
what is deployed, if it has such a call, and otherwise nothing is sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType, load_service
from penstock.config.errors import InferenceFailed
from penstock.tasks.request.auth import BearerTokens
from penstock.tasks.request.http import HttpClient
from penstock.tasks.services.base import CompleteCall, EmbedCall, Refused, Request, Response, Service
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

TEXT = "Penstock"
# One pixel: the smallest PNG that every decoder takes.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4//8/AAX+Av4zEpUUAAAAAElFTkSuQmCC"
)

Found = dict[str, Any]


def verify(endpoint: Endpoint, connect_timeout_s: float = 5.0) -> Found:
    """Make one tiny call, outside the endpoint's lane, and return what it showed. Not for use inside an event loop.

    Args:
        endpoint: with its secrets.
        connect_timeout_s: seconds for a connection.

    Returns:
        ``checked`` (false when nothing was sent), ``model`` as the service names it, ``dimensions`` (of embeddings),
        ``latency_ms``, ``limits`` (what the answer's headers say of the quota), ``info`` (what the service says is
        deployed, where it can be asked), ``note`` (what was not checked, and why).

    Raises:
        InferenceFailed: the service refused, could not be reached, or its answer is not what was asked.
    """
    try:
        return asyncio.run(_verify(endpoint, connect_timeout_s))
    except Refused as exc:
        raise _failed(endpoint, exc.outcome) from None


async def _verify(endpoint: Endpoint, connect_timeout_s: float) -> Found:
    service: Service = load_service(endpoint.service)
    http = HttpClient(connect_timeout_s)
    try:
        known = await BearerTokens(http).authorised(endpoint, service)
        return await _CHECKS[endpoint.task_type](_Check(http, service, known))
    finally:
        await http.aclose()


@dataclass(frozen=True)
class _Timed:
    response: Response
    latency_ms: float


@dataclass(frozen=True)
class _Check:
    """What a check is made with."""

    http: HttpClient
    service: Service
    endpoint: Endpoint

    async def send(self, request: Request) -> _Timed:
        started = time.perf_counter()
        response = await self.http.exchange(request, self.endpoint.timeout_s)
        return _Timed(response, round((time.perf_counter() - started) * 1000, 1))


async def _embedding(check: _Check) -> Found:
    service, endpoint = check.service, check.endpoint
    inputs = [{"image": PIXEL}] if endpoint.task_type is TaskType.IMAGE_EMBEDDING else [TEXT]
    call = EmbedCall(inputs, None, endpoint.task_settings)
    timed = await check.send(service.embed_request(endpoint, call))
    answer = service.read_embeddings(endpoint, call, timed.response)
    found = _found(service, answer.model, timed) | {"dimensions": int(answer.vectors.shape[1])}
    return found | await _info(check)


async def _completion(check: _Check) -> Found:
    service, endpoint = check.service, check.endpoint
    plain = endpoint.task_type is TaskType.COMPLETION
    call = CompleteCall(
        prompt=TEXT if plain else None,
        messages=None if plain else [{"role": "user", "content": TEXT}],
        task_settings=endpoint.task_settings,
        parameters={"max_tokens": 1},
    )
    timed = await check.send(service.complete_request(endpoint, call))
    if _wants_another_name(timed.response):
        call = dataclasses.replace(call, parameters={"max_completion_tokens": 16})
        timed = await check.send(service.complete_request(endpoint, call))
    answer = service.read_completion(endpoint, call, timed.response)
    return _found(service, answer.model, timed) | await _info(check)


def _wants_another_name(response: Response) -> bool:
    """Tell whether the model is one of OpenAI's that refuse ``max_tokens`` and name its successor."""
    return response.status == 400 and b"max_completion_tokens" in response.body


async def _image(check: _Check) -> Found:
    service, endpoint = check.service, check.endpoint
    request = service.info_request(endpoint)
    if request is None:
        return {"checked": False, "note": "an image costs money: nothing was sent, address and key were not tried"}
    timed = await check.send(request)
    if not 200 <= timed.response.status < 300:
        raise Refused(service.refusal(timed.response))
    found = _found(service, "", timed) | {"info": _object(timed.response)}
    return found | {"note": "the service was asked what is deployed; no image was made, since one costs money"}


async def _info(check: _Check) -> Found:
    """Ask what is deployed. A courtesy: not every deployment answers, and the call that matters has succeeded."""
    service, endpoint = check.service, check.endpoint
    request = service.info_request(endpoint)
    if request is None:
        return {}
    try:
        timed = await check.send(request)
    except Refused:
        return {}
    info = _object(timed.response) if timed.response.status == 200 else {}
    return {"info": info} if info else {}


def _object(response: Response) -> Mapping[str, Any]:
    try:
        answer = json.loads(response.body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _found(service: Service, model: str, timed: _Timed) -> Found:
    seen = dataclasses.asdict(service.limits(timed.response))
    return {
        "checked": True,
        "model": model or None,
        "latency_ms": timed.latency_ms,
        "limits": {name: value for name, value in seen.items() if value is not None},
    }


_REMEDIES = {
    OutcomeKind.UNAUTHORIZED: "check the key and what it may use",
    OutcomeKind.NOT_FOUND: "check the model or deployment, and the address",
    OutcomeKind.NOT_SENT: "check the address, and that the server runs",
    OutcomeKind.NO_ANSWER: "try again, or raise service_settings.timeout_s",
    OutcomeKind.QUOTA_EXHAUSTED: "see to the account's billing",
    OutcomeKind.RATE_LIMITED: "try again in a minute",
    OutcomeKind.SERVER_ERROR: "try again, or see to the server",
    OutcomeKind.MALFORMED: "check the address: what answers there speaks another wire format",
}


def _failed(endpoint: Endpoint, outcome: Outcome) -> InferenceFailed:
    status = f" with status {outcome.status}" if outcome.status else ""
    words = (outcome.message or outcome.code).rstrip(". ")
    remedy = _REMEDIES.get(outcome.kind, "change the settings as the message says")
    return InferenceFailed(
        f"the test call of endpoint [{endpoint.inference_id}] failed{status}: {words}; {remedy}",
        outcome.code or str(outcome.kind),
        outcome.status,
        1,
    )


_CHECKS: dict[TaskType, Callable[[_Check], Awaitable[Found]]] = {
    TaskType.TEXT_EMBEDDING: _embedding,
    TaskType.IMAGE_EMBEDDING: _embedding,
    TaskType.COMPLETION: _completion,
    TaskType.CHAT_COMPLETION: _completion,
    TaskType.IMAGE_GENERATION: _image,
}
