"""Access tokens for client credentials, as Microsoft Entra ID gives them.

Source: Microsoft identity platform, "OAuth 2.0 client credentials flow".
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hmac import compare_digest
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.request.keys import TOKEN_PREFIX
from penstock.stand_in.state import STAND_IN


async def token(request: web.Request) -> web.Response:
    """Change a client's id and secret for a token that the other paths let in until it ends."""
    stand_in = request.app[STAND_IN]
    form = await request.post()
    fields = {name: str(value) for name, value in form.items()}
    problem = _problem(fields, stand_in.options.client_secret)
    if problem is not None:
        stand_in.stats.events["token_refusals"] += 1
        return problem
    lifetime_s = stand_in.options.token_lifetime_s
    given = TOKEN_PREFIX + secrets.token_hex(16)
    stand_in.tokens[given] = stand_in.now() + lifetime_s
    stand_in.stats.events["tokens_given"] += 1
    seconds = max(1, int(lifetime_s))
    body = {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": given}
    return _json(body, 200)


def _problem(fields: Mapping[str, str], known: tuple[str, ...]) -> web.Response | None:
    if fields.get("grant_type") != "client_credentials":
        return _error(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
    for name in ("client_id", "client_secret", "scope"):
        if not fields.get(name):
            words = f"The request body must contain the following parameter: '{name}'."
            return _error(400, "invalid_request", 900144, words)
    if known and not any(compare_digest(fields["client_secret"].encode(), secret.encode()) for secret in known):
        return _error(401, "invalid_client", 7000215, "Invalid client secret provided.")
    return None


def _error(status: int, name: str, number: int, words: str) -> web.Response:
    body = {"error": name, "error_description": f"AADSTS{number}: {words}", "error_codes": [number]}
    return _json(body, status)


def _json(data: Any, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json")


def routes() -> list[web.RouteDef]:
    """Return the route of the token endpoint, of every tenant."""
    return [web.post("/{tenant}/oauth2/v2.0/token", token)]
