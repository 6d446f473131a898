"""The way of every metered request: key, account, contents, quota, caps, fault, work, bill, delivery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from inspect import isawaitable
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.faults import UNBILLED, fault_of
from penstock.stand_in.headers import retry_headers
from penstock.stand_in.request import refusals
from penstock.stand_in.request.admission import check_account, check_model, check_quota
from penstock.stand_in.request.call import Call, Dialect, Fault, StandInOperation, Work
from penstock.stand_in.request.delivery import deliver, reset_connection, whole
from penstock.stand_in.request.keys import check_key, presented_key
from penstock.stand_in.request.refusals import No, RequestRefused
from penstock.stand_in.state import STAND_IN

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def handler(operation: StandInOperation) -> Handler:
    """Return the aiohttp handler of an operation."""

    return free_handler(operation.name, operation.dialect, lambda call: _serve(operation, call))


def free_handler(name: str, dialect: Dialect, serve: Callable[[Call], Awaitable[web.StreamResponse]]) -> Handler:
    """Return the aiohttp handler of a request that is counted and whose key is looked at, and nothing more."""

    async def handle(request: web.Request) -> web.StreamResponse:
        stand_in = request.app[STAND_IN]
        key = presented_key(request)
        number = stand_in.stats.result(stand_in.wall(), name, key)
        call = Call(stand_in, request, dialect.name, number, key, stand_in.now())
        call.headers["x-request-id"] = f"req_{number:08d}"
        try:
            check_key(call)
            check_account(call)
            return await serve(call)
        except RequestRefused as refused:
            return _refuse(dialect, call, refused.no)
        finally:
            stand_in.stats.left(stand_in.wall())

    return handle


def _json_object(raw: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise refusals.invalid(f"We could not parse the JSON body of your request: {exc}") from exc
    if not isinstance(body, dict):
        raise refusals.invalid("The body must be a JSON object.")
    return body


async def _serve(operation: StandInOperation, call: Call) -> web.StreamResponse:
    call.raw = await call.request.read()
    call.body = _json_object(call.raw)
    work = operation.read(call)
    call.model = work.model
    check_model(call, work)
    check_quota(call, work)
    stand_in = call.stand_in
    stand_in.working += 1
    try:
        operation.check(call, work)
        fault = _draw(call, work)
        if fault is not None and fault.kind == "reset-before":
            return reset_connection(call)
        answer = operation.answer(call, work, fault)
        reply = await answer if isawaitable(answer) else answer
        if fault is None or fault.kind not in UNBILLED:
            stand_in.stats.billed(stand_in.wall(), work.texts, work.cost)
        return await deliver(call, reply, fault)
    finally:
        stand_in.working -= 1


def _draw(call: Call, work: Work) -> Fault | None:
    """Return the request's fault; raises Refused for those that are a refusal."""
    options = call.options
    by_text = options.fault_by == "text"
    found = fault_of(call.number, work.texts, options.fault, options.poison, by_text, options.seed)
    if found is None:
        return None
    kind, position = found
    call.stand_in.stats.faults[kind] += 1
    named = position if options.name_input and len(work.texts) > position else None
    if kind == "content-filter":
        raise refusals.content_filter(work.param, named)
    if kind == "too-long":
        raise refusals.too_long(options.max_input_tokens, options.max_input_tokens + 1, work.param, named)
    if kind.isdecimal():
        raise refusals.status(int(kind))
    return Fault(kind, position)


def _refuse(dialect: Dialect, call: Call, no: No) -> web.Response:
    """Put a refusal into the vendor's words, with whatever headers go with it."""
    options, stand_in = call.options, call.stand_in
    headers = dict(call.headers)
    if no.wait_s is not None:
        headers |= retry_headers(options.retry_after, no.wait_s, stand_in.wall())
    if options.should_retry:
        headers["x-should-retry"] = options.should_retry
    reply = dialect.words(call, no)
    stand_in.stats.answered(stand_in.wall(), reply.status)
    stand_in.stats.refusals[no.kind if no.kind != "rate" else f"rate_{no.limit}"] += 1
    return whole(replace(reply, headers={**headers, **reply.headers}))
