"""Bearer tokens from client credentials: fetched when needed, kept until shortly before their end, one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

from penstock.config.endpoints.endpoint import Endpoint
from penstock.tasks.request.http import HttpClient, http_client
from penstock.tasks.services.base import Service
from penstock.workers.runtime import Runtime

#: Seconds before its end at which a token is renewed.
EARLY_S = 120.0


class BearerTokens:
    """The tokens of one event loop, by endpoint and version.

    Args:
        http: asks for them.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._tokens: dict[tuple[str, int], tuple[str, float]] = {}
        self._lock = asyncio.Lock()

    async def authorised(self, endpoint: Endpoint, service: Service) -> Endpoint:
        """Return the endpoint with a valid ``access_token`` among its secrets, where its service needs one.

        Raises:
            Refused: the token's own server refused or did not answer.
        """
        request = service.token_request(endpoint)
        if request is None:
            return endpoint
        key = (endpoint.inference_id, endpoint.version)
        async with self._lock:
            token, ends = self._tokens.get(key, ("", 0.0))
            if time.monotonic() >= ends:
                response = await self._http.exchange(request, endpoint.timeout_s)
                token, lasts_s = service.read_token(response)
                self._tokens[key] = token, time.monotonic() + max(0.0, lasts_s - min(EARLY_S, lasts_s / 2))
        return replace(endpoint, secrets={**endpoint.secrets, "access_token": token})

    def evict(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget the tokens of endpoints that were deleted or changed."""
        kept = {(endpoint.inference_id, endpoint.version) for endpoint in endpoints}
        for key in [key for key in self._tokens if key not in kept]:
            del self._tokens[key]


def bearer_tokens(runtime: Runtime) -> BearerTokens:
    """Return the running event loop's tokens."""
    return runtime.of_loop(BearerTokens, lambda: BearerTokens(http_client(runtime)))
