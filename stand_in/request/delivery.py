"""Sending an answer, late or broken where a fault says so."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web

from penstock.stand_in.faults import uniform
from penstock.stand_in.request.call import Call, Fault, Reply, Stream

_ERROR = (
    b'{"error":{"message":"The server had an error while processing your request.","type":"server_error",'
    b'"param":null,"code":null}}'
)
_HTML = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Please wait</h1></body></html>"


def whole(reply: Reply) -> web.Response:
    """Return a whole answer as aiohttp sends it."""
    return web.Response(body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type)


async def deliver(call: Call, reply: Reply | Stream, fault: Fault | None) -> web.StreamResponse:
    """Send ``reply`` after the latency, with ``fault``."""
    await _latency(call, fault)
    kind = fault.kind if fault else ""
    if kind == "reset-after":
        return reset_connection(call)
    if kind == "truncated" and isinstance(reply, Reply):
        return await _truncated(call, reply)
    if kind in ("error-200", "html-200", "empty-200"):
        reply = {
            "error-200": Reply(_ERROR),
            "html-200": Reply(_HTML, content_type="text/html"),
            "empty-200": Reply(b""),
        }[kind]
    call.stand_in.stats.answered(call.stand_in.wall(), 200 if isinstance(reply, Stream) else reply.status)
    headers = {**call.headers, **reply.headers}
    if isinstance(reply, Stream):
        return await _stream(call, reply, headers, kind == "truncated")
    body = reply.body[: len(reply.body) // 2] + b'"<' if kind == "malformed" else reply.body
    return whole(replace(reply, body=body, headers=headers))


async def _latency(call: Call, fault: Fault | None) -> None:
    options = call.options
    delay_s = options.latency_ms / 1000
    if options.jitter_ms:
        delay_s += options.jitter_ms / 1000 * uniform(options.seed + 1, call.number)
    delay_s -= call.stand_in.now() - call.result  # the work itself is a part of the latency
    if fault is not None and fault.kind in ("stall", "slow"):
        delay_s = max(0.0, delay_s) + (options.stall_s if fault.kind == "stall" else options.slow_s)
    if delay_s > 0:
        await asyncio.sleep(delay_s)


async def _truncated(call: Call, reply: Reply) -> web.StreamResponse:
    """Promise the whole body, send half of it and close."""
    headers = {**call.headers, **reply.headers, "content-length": str(len(reply.body))}
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_type = reply.content_type
    call.stand_in.stats.answered(call.stand_in.wall(), reply.status)
    await response.prepare(call.request)
    await response.write(reply.body[: len(reply.body) // 2])
    if call.request.transport is not None:
        call.request.transport.close()
    return response


async def _stream(call: Call, stream: Stream, headers: Mapping[str, str], cut: bool) -> web.StreamResponse:
    """Send the pieces; where ``cut``, close the connection in place of the body's end."""
    response = web.StreamResponse(headers={**headers, "cache-control": "no-cache"})
    response.content_type = stream.content_type
    try:
        await response.prepare(call.request)
        async for part in stream.parts:
            await response.write(part)
        if cut and call.request.transport is not None:
            call.request.transport.close()
        else:
            await response.write_eof()
    except ConnectionError:
        call.stand_in.stats.events["client_left"] += 1
    return response


def reset_connection(call: Call) -> web.StreamResponse:
    """Reset the client's connection (RST, not FIN); the answer returned goes nowhere."""
    call.stand_in.stats.events["reset"] += 1
    transport = call.request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
