"""Checks AWS signatures (Signature Version 4), so that a client's signing is tried against other code than its own.

Source: AWS General Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<scope>(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)"
    r"/aws4_request),\s*SignedHeaders=(?P<headers>[^,]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


def access_key(authorization: str) -> str:
    """Return the id of the key that signed, "" where there is no signature."""
    found = _AUTHORIZATION.fullmatch(authorization)
    return found["id"] if found else ""


def problem(method: str, target: str, headers: Mapping[str, str], body: bytes, secret: str) -> str:
    """Say what is wrong with a signed request, "" if its signature is right.

    Args:
        method: such as POST.
        target: path and query as they came over the wire.
        headers: names in lower case.
        body: as it came.
        secret: the secret key of the id that signed.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None:
        return "The request has no well-formed signature."
    if found["service"] != "bedrock":
        return f"Credential should be scoped to correct service: 'bedrock', not '{found['service']}'."
    names = found["headers"].split(";")
    if missing := {"host", "x-amz-date"} - set(names):
        return f"The signature must cover {', '.join(sorted(missing))}."
    date = headers.get("x-amz-date", "")
    if not date.startswith(found["date"]):
        return "The dates of X-Amz-Date and of the credential's scope differ."
    canonical = _canonical(method, target, {name: headers.get(name, "") for name in names}, body)
    text = "\n".join(("AWS4-HMAC-SHA256", date, found["scope"], hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in found["scope"].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.digest(key, text.encode(), "sha256").hex()
    if hmac.compare_digest(expected, found["signature"]):
        return ""
    return "The request signature we calculated does not match the signature you provided."


def _canonical(method: str, target: str, headers: Mapping[str, str], body: bytes) -> str:
    path, _, query = target.partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    sorted_query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in headers.items())
    # Every service but S3 encodes the path once more than the wire does: %3A is signed as %253A.
    parts = (method, quote(path, safe="/~"), sorted_query, lines, ";".join(headers), hashlib.sha256(body).hexdigest())
    return "\n".join(parts)
