"""Which key a request presents, and whether it is let in."""

from __future__ import annotations

from hmac import compare_digest

from aiohttp import web

from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call
from penstock.stand_in.request.sigv4 import access_key

TOKEN_PREFIX = "stand-in-token-"  # noqa: S105 - the mark of our tokens beside keys, no secret

_HEADERS = ("api-key", "x-api-key")


def presented_key(request: web.Request) -> str:
    """Return the key of ``Authorization: Bearer``, else of ``api-key``, else the id that signed; "" if none."""
    authorization = request.headers.get("authorization", "")
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    key = next((request.headers[name] for name in _HEADERS if request.headers.get(name)), "")
    return key or access_key(authorization)


def check_key(call: Call) -> None:
    """Refuse a key that is not among ``--api-key``; access tokens of our own are let in until they end."""
    if call.key.startswith(TOKEN_PREFIX):
        if call.stand_in.tokens.get(call.key, 0.0) <= call.result:
            raise refusals.unauthorized()
        return
    known = call.options.api_key
    if call.options.aws_key and access_key(call.request.headers.get("authorization", "")):
        return  # a signature is looked at once the body is read
    if known and not any(compare_digest(call.key.encode(), key.encode()) for key in known):
        raise refusals.unauthorized()
