"""Azure AI Model Inference's error bodies: flat.

Source: Azure AI Model Inference REST API reference (2024-05-01-preview).
"""

from __future__ import annotations

from typing import Any

import orjson

from penstock.stand_in.request.call import Call, Reply
from penstock.stand_in.request.refusals import No, with_delay

_NAMES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


class AzureAIWords:
    """``{"status", "code" or "error", "message"}``."""

    name = "azure_ai"

    def words(self, call: Call, no: No) -> Reply:
        no = with_delay(no, call.options.retry_after)
        if no.kind == "unsupported":
            return Reply(orjson.dumps(_unsupported(no)), 422)
        body: dict[str, Any] = {"status": no.status}
        if no.kind == "content_filter":
            body |= {"code": "content_filter", "message": "The response was filtered", "param": no.param, "type": None}
        elif no.kind in ("too_long", "max_inputs", "max_request_tokens", "invalid", "billing"):
            body |= {"code": no.code or "invalid_request", "message": no.message, "param": no.param}
        else:
            body |= {"error": _NAMES.get(no.status, "Error"), "message": no.message}
        return Reply(orjson.dumps(body), no.status)


def _unsupported(no: No) -> dict[str, Any]:
    value = no.value.get("type") if isinstance(no.value, dict) and "type" in no.value else no.value
    return {
        "status": 422,
        "code": "parameter_not_supported",
        "detail": {"loc": ["body", no.param], "input": value},
        "message": "One of the parameters contain invalid values.",
    }


AZURE_AI = AzureAIWords()
