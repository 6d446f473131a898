"""Azure OpenAI's error bodies, and what every one of its requests must have.

Sources: Azure OpenAI REST API reference, and answers quoted in public issue threads.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from penstock.stand_in.request.call import Call, Reply
from penstock.stand_in.request.refusals import No, RequestRefused

_CATEGORIES = ("hate", "self_harm", "sexual", "violence")
_NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again."
)
_NO_ACCESS = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)
_FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
    "your prompt and retry. To learn more about our content filtering policies please read our documentation: "
    "https://go.microsoft.com/fwlink/?linkid=2198766"
)
_REJECTED = (
    "Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed by "
    "our safety system."
)
_OPERATIONS = {
    "embeddings": "Embeddings_Create",
    "chat": "ChatCompletions_Create",
    "completions": "Completions_Create",
    "images": "ImageGenerations_Create",
}


class AzureWords:
    """``{"error": {"code", "message"}}``, OpenAI's shape for what the model itself refuses."""

    name = "azure"

    def words(self, call: Call, no: No) -> Reply:
        error = _error(call, no)
        headers = {"apim-request-id": call.headers.get("x-request-id", "")}
        if isinstance(error.get("code"), str):
            headers["x-ms-error-code"] = error["code"]
        if no.kind == "rate":
            headers["policy-id"] = f"DeploymentRatelimit-{'Token' if no.limit == 'tokens' else 'Call'}"
        return Reply(orjson.dumps({"error": error}), no.status, headers=headers)


def _error(call: Call, no: No) -> dict[str, Any]:
    if no.kind in ("rate", "concurrency", "slow_down"):
        return {"code": "429", "message": _rate_message(call, no)}
    if no.kind == "content_filter":
        return filter_error(call)
    if no.kind == "unauthorized":
        return {"code": "401", "message": _NO_ACCESS}
    if no.kind == "forbidden":
        return {"code": "AccessDenied", "message": "Access denied due to Virtual Network/Firewall rules."}
    if no.kind == "not_found":
        return {"code": "DeploymentNotFound", "message": _NO_DEPLOYMENT}
    if no.kind == "billing":
        return {"code": no.code, "message": no.message}
    if no.kind == "server_error":
        return {"code": "InternalServerError" if no.status == 500 else str(no.status), "message": no.message}
    return {"message": no.message, "type": no.type, "param": no.param, "code": no.code}


def _rate_message(call: Call, no: No) -> str:
    name = next((operation for part, operation in _OPERATIONS.items() if f"/{part}" in call.request.path), "The")
    kind = "token" if no.limit == "tokens" else "call"
    version = call.request.query.get("api-version", "2024-10-21")
    message = (
        f"Requests to the {name} Operation under Azure OpenAI API version {version} have exceeded {kind} rate limit "
        "of your current OpenAI S0 pricing tier."
    )
    if no.wait_s is not None and "message" in call.options.retry_after:
        message += f" Please retry after {max(1, math.ceil(no.wait_s))} seconds."
    return (
        f"{message} Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the limit."
    )


def filter_results(filtered: bool) -> dict[str, Any]:
    """Return the filter's findings: violence, or nothing."""
    results: dict[str, Any] = {name: {"filtered": False, "severity": "safe"} for name in _CATEGORIES}
    if filtered:
        results["violence"] = {"filtered": True, "severity": "high"}
    return {**results, "jailbreak": {"filtered": False, "detected": False}}


def filter_error(call: Call) -> dict[str, Any]:
    """Return the error object of the content filter, spelled as ``--content-filter`` says.

    The specification says ``inner_error`` and ``content_filter_results``, the chat endpoints send ``innererror`` and
    ``content_filter_result``; older answers have neither, and images a code of their own.
    """
    spelling = call.options.content_filter
    error: dict[str, Any] = {
        "message": _FILTERED,
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
    }
    if "/images/" in call.request.path:
        error = {"code": "content_policy_violation", "message": _REJECTED, "type": "invalid_request_error"}
    inner = {"code": "ResponsibleAIPolicyViolation"}
    if spelling == "innererror":
        error["innererror"] = {**inner, "content_filter_result": filter_results(True)}
    elif spelling == "inner_error":
        error["inner_error"] = {**inner, "content_filter_results": filter_results(True)}
    return error


def check_version(call: Call) -> None:
    """Refuse a request without ``api-version``, as Azure does: with a 404."""
    if not call.request.query.get("api-version"):
        raise RequestRefused(No("invalid", 404, "Resource not found", None, "404"))


AZURE = AzureWords()
