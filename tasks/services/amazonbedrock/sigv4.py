"""Signs requests for AWS with botocore's own signer, an extra. A signature has a date: the signer reads the clock."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.config.errors import ConfigurationError
from penstock.tasks.services.base import Request


def signed(request: Request, secrets: Mapping[str, str], service: str, region: str) -> Request:
    """Return the request with an AWS Signature Version 4.

    It holds for five minutes, and for exactly this URL, body and headers. A client that writes the path in another
    way (yarl, under aiohttp, makes ``:`` of ``%3A``) would break it: give a URL that every client leaves alone.

    Args:
        request: complete with its headers.
        secrets: ``access_key``, ``secret_key`` and perhaps ``session_token``.
        service: the name to sign for (``bedrock``).
        region: such as ``us-east-1``.

    Raises:
        ConfigurationError: botocore is not installed.
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError as exc:
        raise ConfigurationError(
            "Requests to Amazon Bedrock are signed by botocore, which is not installed: "
            "pip install 'penstock[bedrock]', or give the endpoint an [api_key] in place of [access_key]."
        ) from exc
    keys = Credentials(secrets.get("access_key", ""), secrets.get("secret_key", ""), secrets.get("session_token"))
    unsigned = AWSRequest(request.method, request.url, headers=dict(request.headers), data=request.body)
    SigV4Auth(keys, service, region).add_auth(unsigned)
    return Request(request.method, request.url, dict(unsigned.headers.items()), request.body)
