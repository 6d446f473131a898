"""Bedrock's errors: ``x-amzn-ErrorType`` and ``{"message"}``.

Source: botocore's model of bedrock-runtime, Amazon Bedrock API reference.
"""

from __future__ import annotations

from typing import Any

import orjson

from penstock.stand_in.request.call import Call, Reply
from penstock.stand_in.request.refusals import No

_BY_KIND = {
    "rate": (429, "ThrottlingException"),
    "concurrency": (429, "ThrottlingException"),
    "slow_down": (429, "ModelNotReadyException"),
    "billing": (400, "ServiceQuotaExceededException"),
    "unauthorized": (403, "UnrecognizedClientException"),
    "forbidden": (403, "AccessDeniedException"),
    "not_found": (404, "ResourceNotFoundException"),
}
_BY_STATUS = {
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    503: "ServiceUnavailableException",
}
_MESSAGES = {
    "slow_down": "The model is not ready for inference. Please wait and try again.",
    "billing": "Your request exceeds the service quota for your account.",
    "unauthorized": "The security token included in the request is invalid.",
    "forbidden": "You don't have access to the model with the specified model ID.",
    "not_found": "Could not resolve the foundation model from the provided model identifier.",
}


class BedrockWords:
    """The errors of bedrock-runtime; a refused key may be one of a signature."""

    name = "bedrock"

    def words(self, call: Call, no: No) -> Reply:
        status, name = _BY_KIND.get(no.kind, (no.status, ""))
        if no.kind == "unauthorized" and no.code == "signature":
            name = "InvalidSignatureException"
        if not name:
            name = _BY_STATUS.get(status, "ValidationException" if status < 500 else "InternalServerException")
        body: dict[str, Any] = {"message": _message(no)}
        if name == "ModelErrorException":
            body |= {"originalStatusCode": 400, "resourceName": call.model}
        return Reply(orjson.dumps(body), status, headers={"x-amzn-errortype": f"{name}:"})


def _message(no: No) -> str:
    if no.kind in ("rate", "concurrency"):
        return f"Too many {no.limit}, please wait before trying again."
    if no.kind == "unauthorized" and no.code == "signature":
        return no.message
    return _MESSAGES.get(no.kind, no.message)


BEDROCK = BedrockWords()
