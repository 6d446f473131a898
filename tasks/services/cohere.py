"""Cohere's own embeddings, ``/v2/embed``. Everything about the service is in this file.

Sources: Cohere API reference, "Embed API (v2)" and "Errors"; settings as in Elasticsearch's ``cohere`` inference
service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Caps, ServiceSpec, Setting, TaskSpec, TaskType
from penstock.tasks.services.base import EmbedCall, Embeddings, Request, Response, Service
from penstock.tasks.services.wire import answers, embeddings, refusals, urls, vectors
from penstock.tasks.services.wire.errors import ErrorBody, read_error
from penstock.tasks.services.wire.refusals import Named
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Usage

BASE = "https://api.cohere.com"
ROUTE = "/v2/embed"

INPUT_TYPES = {
    "search": "search_query",
    "ingest": "search_document",
    "classification": "classification",
    "clustering": "clustering",
}
_TYPES = ("float", "int8", "uint8", "binary", "ubinary")
_SETTINGS = (
    Setting("api_key", required=True, secret=True),
    Setting("model_id", required=True, help="such as embed-v4.0"),
    Setting("url", kind="url", help=f"a base, or the whole address; {BASE}{ROUTE} by default"),
    Setting("embedding_type", choices=_TYPES, default="float"),
    Setting("dimensions", kind="integer", minimum=1, help="sent as output_dimension"),
    Setting("similarity", choices=("cosine", "dot_product", "l2_norm")),
    Setting("max_input_tokens", kind="integer", minimum=1),
)
_TASK = (
    Setting("input_type", choices=tuple(INPUT_TYPES), help="ingest by default"),
    Setting("truncate", choices=("NONE", "START", "END"), help="what to do with texts that are too long"),
    Setting("headers", kind="map"),
    Setting("parameters", kind="map", help="further fields of every request"),
)
_NOT_FIELDS = embeddings.NOT_FIELDS | {"input_type"}


def _caps(settings: Mapping[str, Any]) -> Caps:
    return Caps(inputs=96, input_tokens=settings.get("max_input_tokens"))


def _account(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return (urls.server(settings.get("url") or BASE), str(settings.get("api_key") or ""))


class Cohere(Service):
    """``cohere``: text embeddings."""

    spec = ServiceSpec(
        name="cohere",
        tasks={TaskType.TEXT_EMBEDDING: TaskSpec(_SETTINGS, _TASK, 10000, _caps)},
        account=_account,
    )

    def embed_request(self, endpoint: Endpoint, call: EmbedCall) -> Request:
        """POST ``/v2/embed``."""
        settings = endpoint.service_settings
        kind = call.input_type or call.task_settings.get("input_type") or "ingest"
        body = {
            "model": settings["model_id"],
            "texts": embeddings.texts(call.inputs),
            "input_type": INPUT_TYPES.get(kind, kind),
            "embedding_types": [_type(endpoint)],
            "output_dimension": settings.get("dimensions"),
        } | embeddings.fields(call.task_settings, _NOT_FIELDS)
        url = settings.get("url") or BASE
        path = urls.path_of(url)
        if not path.endswith("/embed"):
            url = urls.with_path(url, path.removesuffix("/v2") + ROUTE)
        headers = urls.JSON | {"Authorization": f"Bearer {endpoint.secrets['api_key']}"}
        return Request("POST", url, urls.merged(headers, call.task_settings.get("headers")), answers.write_json(body))

    def read_embeddings(self, endpoint: Endpoint, call: EmbedCall, response: Response) -> Embeddings:
        """Read ``embeddings`` by type. Raises Refused."""
        document = answers.read_json(response, lambda answer: self.refusal(answer, endpoint))
        kind = _type(endpoint)
        found = document.get("embeddings")
        rows = found.get(kind) if isinstance(found, Mapping) else found
        if not isinstance(rows, list):
            raise vectors.malformed("missing_data", f"The answer has no embeddings of type {kind}.")
        dimensions = endpoint.service_settings.get("dimensions")
        array = vectors.stack(rows, len(call.inputs), dimensions=dimensions, encoding=kind)
        return Embeddings(array, _usage(document), endpoint.service_settings["model_id"])

    def refusal(self, response: Response, endpoint: Endpoint | None = None) -> Outcome:
        """Name a non-2xx answer; a trial key's calls per month end where per minute only wait."""
        error = read_error(response.body)
        secrets = tuple(endpoint.secrets.values()) if endpoint else ()
        return refusals.outcome(error, response, self.clock(), secrets, _named(response.status, error))


def _type(endpoint: Endpoint) -> str:
    return str(endpoint.service_settings.get("embedding_type") or "float")


def _named(status: int, error: ErrorBody) -> Named | None:
    if status == 429 and "/ month" in error.message:
        return Named(OutcomeKind.QUOTA_EXHAUSTED, "trial_key_exhausted")
    if status == 498:  # Cohere's "the input or the output has prohibited content"
        return Named(OutcomeKind.INPUT_REFUSED, "content_filter")
    return None


def _usage(document: Mapping[str, Any]) -> Usage:
    meta = document.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, Mapping) else None
    tokens = billed.get("input_tokens") if isinstance(billed, Mapping) else None
    return answers.usage({"usage": {"prompt_tokens": int(tokens) if isinstance(tokens, int | float) else 0}})


SERVICE = Cohere()
