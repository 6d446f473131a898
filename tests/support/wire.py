"""Short hands for the tests of wire formats: an endpoint, an answer, a body, a vendor's schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType, load_service
from penstock.tasks.services.base import Request, Response, Service

SPECS = Path(__file__).resolve().parent.parent / "unit" / "services" / "specs"


def service(name: str) -> Service:
    found: Service = load_service(name)
    return found


def endpoint(
    service: str,
    task_type: str,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str] | None = None,
    task_settings: Mapping[str, Any] | None = None,
) -> Endpoint:
    """An endpoint as the validation would leave it, with a key unless there are other secrets."""
    return Endpoint(
        "under-test",
        TaskType(task_type),
        service,
        settings,
        task_settings or {},
        secrets={"api_key": "key-0123456789abcdef"} if secrets is None else secrets,
    )


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    """An answer; mappings and lists become JSON. Underscores in names of headers become hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return Response(status, {"content-type": "application/json"} | sent, body)
    if isinstance(body, str):
        return Response(status, {"content-type": "text/plain"} | sent, body.encode())
    return Response(status, {"content-type": "application/json"} | sent, json.dumps(body).encode())


def body_of(request: Request) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request.body)
    return document


def check_schema(name: str, instance: Any) -> None:
    """Raise unless ``instance`` is as the vendor's schema says (``specs/NAME.json``)."""
    schema = json.loads((SPECS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(instance)
