"""Bearer tokens from client credentials: fetched when needed, kept until shortly before their end, one at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from weakref import WeakKeyDictionary

from penstock.config.endpoints.endpoint import Endpoint
from penstock.tasks.request.http import exchange
from penstock.tasks.services.base import Service

#: Seconds before its end at which a token is renewed.
EARLY_S = 120.0

_Tokens = dict[tuple[str, int], tuple[str, float]]
_tokens: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Tokens, asyncio.Lock]] = WeakKeyDictionary()


async def authorised(endpoint: Endpoint, service: Service) -> Endpoint:
    """Return the endpoint with a valid ``access_token`` among its secrets, where its service needs one.

    Raises:
        Refused: the token's own server refused or did not answer.
    """
    request = service.token_request(endpoint)
    if request is None:
        return endpoint
    tokens, lock = _tokens.setdefault(asyncio.get_running_loop(), ({}, asyncio.Lock()))
    key = (endpoint.inference_id, endpoint.version)
    async with lock:
        token, ends = tokens.get(key, ("", 0.0))
        if time.monotonic() >= ends:
            response = await exchange(request, endpoint.timeout_s)
            token, lasts_s = service.read_token(response)
            tokens[key] = token, time.monotonic() + max(0.0, lasts_s - min(EARLY_S, lasts_s / 2))
    return replace(endpoint, secrets={**endpoint.secrets, "access_token": token})
