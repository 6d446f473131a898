"""Access tokens for client credentials (OAuth 2.0, RFC 6749 section 4.4), as Microsoft Entra ID gives them. Pure.

Source: Microsoft identity platform, "OAuth 2.0 client credentials flow", and RFC 6749 section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Setting
from penstock.tasks.services.base import Refused, Request, Response
from penstock.tasks.services.wire import answers, headers
from penstock.tasks.services.wire.errors import clean, read_error, snake
from penstock.tasks.services.wire.refusals import refusal
from penstock.workers.lanes.outcome import Outcome, OutcomeKind

AUTHORITY = "https://login.microsoftonline.com"
SETTINGS = (
    Setting("client_id", help="of the application that asks for tokens"),
    Setting("client_secret", secret=True, help="in place of a key: tokens are fetched with it"),
    Setting("scopes", kind="strings", help="what the tokens are for"),
)


def faults(settings: Mapping[str, Any], needed: Sequence[str]) -> list[str]:
    """Messages about client credentials that are there in part only."""
    if not settings.get("client_secret"):
        return [f"[service_settings] [{name}] goes with [client_secret]" for name in needed if settings.get(name)]
    missing = [name for name in needed if not settings.get(name)]
    return [f"[service_settings] does not contain the required setting [{name}]" for name in missing]


def token_request(endpoint: Endpoint) -> Request | None:
    """Build the request for a token, None where the endpoint has no ``client_secret``."""
    settings, secret = endpoint.service_settings, endpoint.secrets.get("client_secret")
    if not secret:
        return None
    tenant = quote(str(settings.get("tenant_id") or ""), safe="")
    url = settings.get("token_url") or f"{AUTHORITY}/{tenant}/oauth2/v2.0/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.get("client_id") or "",
        "client_secret": secret,
        "scope": " ".join(settings.get("scopes") or ()),
    }
    sent = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return Request("POST", url, sent, urlencode(form).encode())


def read_token(response: Response, now: float | None = None) -> tuple[str, float]:
    """Return a token and for how many seconds it lasts (300 where the answer does not say).

    Raises:
        Refused: UNAUTHORIZED for whatever is wrong with the credentials, else by status; MALFORMED ``no_token``.
    """
    document = answers.read_json(response, lambda answer: _refused(answer, now))
    token = document.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise Refused(Outcome(OutcomeKind.MALFORMED, "no_token", "The answer has no access token.", response.status))
    # Older authorities write the number as a string.
    return token, headers.seconds(str(document.get("expires_in"))) or 300.0


def _refused(response: Response, now: float | None) -> Outcome:
    """Whatever is wrong with a client, its secret, tenant or scope: no request will succeed until someone acts."""
    if response.status in (400, 401, 403, 404):
        error = read_error(response.body)
        code = snake(error.code) or "invalid_client"
        message = clean(error.message) or "The token was refused."
        return Outcome(OutcomeKind.UNAUTHORIZED, code, message, response.status)
    return refusal(response, now)
