"""Amazon Bedrock: embeddings by InvokeModel (Titan, Cohere) and completions by Converse, signed or with a bearer key.

Sources: Amazon Bedrock API reference and model parameters pages; botocore's model of bedrock-runtime (statuses of the
errors); settings as in Elasticsearch's ``amazonbedrock`` inference service. Beyond it: ``api_key`` (a Bedrock API key)
and ``session_token``, ``url`` (a VPC endpoint), ``dimensions``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Caps, ServiceSpec, Setting, TaskSpec, TaskType
from penstock.config.errors import InputInvalid
from penstock.tasks.services.amazonbedrock import converse, converse_stream
from penstock.tasks.services.amazonbedrock.sigv4 import signed
from penstock.tasks.services.base import (
    CompleteCall,
    Completion,
    EmbedCall,
    Embeddings,
    Request,
    Response,
    Service,
    StreamReader,
)
from penstock.tasks.services.wire import answers, embeddings, refusals, urls, vectors
from penstock.tasks.services.wire.errors import ErrorBody, read_error, snake
from penstock.tasks.services.wire.refusals import Named
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Usage

DEFAULT_NEW_TOKENS = 64
TITAN, COHERE = "amazontitan", "cohere"

INPUT_TYPES = {
    "search": "search_query",
    "ingest": "search_document",
    "classification": "classification",
    "clustering": "clustering",
}
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-\d+")
_TOP_K = ("anthropic", "cohere", "mistral")
_COMMON = (
    Setting("access_key", secret=True),
    Setting("secret_key", secret=True),
    Setting("session_token", secret=True, help="with temporary keys"),
    Setting("api_key", secret=True, help="a Bedrock API key, in place of access_key and secret_key"),
    Setting("model", required=True, help="model id, inference profile or ARN"),
    Setting("region", required=True, help="such as us-east-1"),
    Setting("provider", required=True, choices=("amazontitan", "anthropic", "ai21labs", "cohere", "meta", "mistral")),
    Setting("url", kind="url", help="a base in place of https://bedrock-runtime.REGION.amazonaws.com"),
)
_EMBEDDING = (
    *_COMMON,
    Setting("dimensions", kind="integer", minimum=1, help="Titan 2: 256, 512 or 1024; Cohere 4: output_dimension"),
    Setting("similarity", choices=("cosine", "dot_product", "l2_norm"), help="cosine for Titan, else dot_product"),
    Setting("max_input_tokens", kind="integer", minimum=1),
)
_EMBEDDING_TASK = (
    Setting("truncate", choices=("NONE", "START", "END"), help="Cohere only"),
    Setting("headers", kind="map"),
    Setting("parameters", kind="map", help="further fields of every request"),
)
_COMPLETION_TASK = (
    Setting("temperature", kind="number", minimum=0, maximum=1),
    Setting("top_p", kind="number", minimum=0, maximum=1),
    Setting("top_k", kind="number", minimum=0, help="anthropic, cohere and mistral only"),
    Setting("headers", kind="map"),
    Setting("parameters", kind="map", help="further fields of every request"),
)

# Statuses are botocore's; a throttle may also come as a 400, so the name decides.
_ERRORS = {
    "access_denied": Named(OutcomeKind.UNAUTHORIZED, "access_denied"),
    "unrecognized_client": Named(OutcomeKind.UNAUTHORIZED, "invalid_api_key"),
    "invalid_signature": Named(OutcomeKind.UNAUTHORIZED, "invalid_signature"),
    "signature_does_not_match": Named(OutcomeKind.UNAUTHORIZED, "invalid_signature"),
    "expired_token": Named(OutcomeKind.UNAUTHORIZED, "expired_token"),
    "missing_authentication_token": Named(OutcomeKind.UNAUTHORIZED, "missing_authentication_token"),
    "resource_not_found": Named(OutcomeKind.NOT_FOUND, "resource_not_found"),
    "service_quota_exceeded": Named(OutcomeKind.QUOTA_EXHAUSTED, "service_quota_exceeded"),
    "throttling": Named(OutcomeKind.RATE_LIMITED, "throttling"),
    "too_many_requests": Named(OutcomeKind.RATE_LIMITED, "throttling"),
    "model_not_ready": Named(OutcomeKind.RATE_LIMITED, "model_not_ready"),
    "model_timeout": Named(OutcomeKind.SERVER_ERROR, "model_timeout"),
    "model_error": Named(OutcomeKind.SERVER_ERROR, "model_error"),
    "model_stream_error": Named(OutcomeKind.SERVER_ERROR, "model_stream_error"),
    "internal_server": Named(OutcomeKind.SERVER_ERROR, "server_error"),
    "service_unavailable": Named(OutcomeKind.SERVER_ERROR, "service_unavailable"),
}
_NO_MODEL = re.compile(r"model identifier is invalid|model.{0,40}not found|end of its life", re.IGNORECASE)
_UNFIT = re.compile(r"on-demand throughput|isn.t supported|not supported|extraneous key|required key", re.IGNORECASE)


def _caps(settings: Mapping[str, Any]) -> Caps:
    """Titan takes one text a call, Cohere 96."""
    inputs = 96 if settings.get("provider") == COHERE else 1
    return Caps(inputs=inputs, input_tokens=min(8192, settings.get("max_input_tokens") or 8192))


def _account(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """AWS limits an account's use of a model in a region; the keys stand for the account."""
    return tuple(str(settings.get(name) or "") for name in ("access_key", "api_key", "region", "model", "url"))


def _check(task_type: TaskType, settings: Mapping[str, Any], task_settings: Mapping[str, Any]) -> list[str]:
    faults = []
    provider, region = settings.get("provider"), settings.get("region")
    if settings.get("access_key") and not settings.get("secret_key"):
        faults.append("[service_settings] does not contain the required setting [secret_key]")
    if settings.get("secret_key") and not settings.get("access_key"):
        faults.append("[service_settings] [secret_key] goes with [access_key]")
    if region and not _REGION.fullmatch(str(region)):
        faults.append(f"[service_settings] Invalid value [{region}]. [region] is a region of AWS such as us-east-1")
    if task_type is TaskType.TEXT_EMBEDDING and provider not in (None, TITAN, COHERE):
        faults.append(f"The [text_embedding] task type for provider [{provider}] is not available")
    if task_type is TaskType.CHAT_COMPLETION and provider == TITAN:
        faults.append(f"The [chat_completion] task type for provider [{provider}] is not available")
    if "truncate" in task_settings and provider not in (None, COHERE):
        faults.append(f"The [truncate] task parameter is not available for provider [{provider}]")
    if "top_k" in task_settings and provider not in (None, *_TOP_K):
        faults.append(f"The [top_k] task parameter is not available for provider [{provider}]")
    return faults


def _completion_task(default: int | None) -> tuple[Setting, ...]:
    return (Setting("max_new_tokens", kind="integer", minimum=1, default=default), *_COMPLETION_TASK)


class AmazonBedrock(Service):
    """``amazonbedrock``."""

    spec = ServiceSpec(
        name="amazonbedrock",
        tasks={
            TaskType.TEXT_EMBEDDING: TaskSpec(_EMBEDDING, _EMBEDDING_TASK, 240, _caps),
            TaskType.COMPLETION: TaskSpec(_COMMON, _completion_task(DEFAULT_NEW_TOKENS), 240),
            TaskType.CHAT_COMPLETION: TaskSpec(_COMMON, _completion_task(None), 240),
        },
        exactly_one=(("access_key", "api_key"),),
        account=_account,
        check=_check,
    )

    def embed_request(self, endpoint: Endpoint, call: EmbedCall) -> Request:
        """POST ``/model/{id}/invoke`` with Titan's or Cohere's body."""
        texts = embeddings.texts(call.inputs)
        given = embeddings.fields(call.task_settings)
        if endpoint.service_settings.get("provider") == COHERE:
            body = _cohere_body(endpoint, texts, call.input_type) | given
        else:
            body = _titan_body(endpoint, texts) | given
        return self._json_request(endpoint, "invoke", body, call.task_settings)

    def read_embeddings(self, endpoint: Endpoint, call: EmbedCall, response: Response) -> Embeddings:
        """Read Titan's one vector or Cohere's many. Raises Refused."""
        document = answers.read_json(response, lambda answer: self.refusal(answer, endpoint))
        by_type = document.get("embeddingsByType") or document.get("embeddings")
        if endpoint.service_settings.get("provider") == COHERE:
            rows = by_type.get("float") if isinstance(by_type, Mapping) else by_type
        else:
            rows = [document.get("embedding") or (by_type.get("float") if isinstance(by_type, Mapping) else None)]
        if not isinstance(rows, list):
            raise vectors.malformed("missing_data", "The answer has no list of embeddings.")
        dimensions = endpoint.service_settings.get("dimensions")
        array = vectors.stack(rows, len(call.inputs), dimensions=dimensions)
        return Embeddings(array, _usage(document, response), endpoint.service_settings["model"])

    def complete_request(self, endpoint: Endpoint, call: CompleteCall) -> Request:
        """POST ``/model/{id}/converse`` or ``/converse-stream``."""
        default = DEFAULT_NEW_TOKENS if endpoint.task_type is TaskType.COMPLETION else None
        action = "converse-stream" if call.stream else "converse"
        return self._json_request(endpoint, action, converse.body(call, default), call.task_settings)

    def read_completion(self, endpoint: Endpoint, call: CompleteCall, response: Response) -> Completion:
        """Read Converse's answer. Raises Refused."""
        document = answers.read_json(response, lambda answer: self.refusal(answer, endpoint))
        return converse.read(document, endpoint.service_settings["model"])

    def stream_reader(self, endpoint: Endpoint, call: CompleteCall) -> StreamReader:
        """Return a reader of AWS event streams. Raises ConfigurationError without botocore."""
        return converse_stream.ConverseStream(endpoint.service_settings["model"], self._event_refusal)

    def refusal(self, response: Response, endpoint: Endpoint | None = None) -> Outcome:
        """Name a non-2xx answer by ``x-amzn-ErrorType``, then as for every service."""
        error = read_error(response.body)
        stated = response.headers.get("x-amzn-errortype", "").split(":")[0] or error.code or error.type
        secrets = tuple(endpoint.secrets.values()) if endpoint else ()
        return refusals.outcome(error, response, self.clock(), secrets, _named(stated, response.status, error))

    def _event_refusal(self, kind: str, payload: bytes) -> Outcome:
        error = read_error(payload)
        status = 400 if kind.lower().startswith("validation") else error.status
        named = _named(kind, 400, error) or refusals.name(status, error)
        return refusals.outcome(error, Response(200), self.clock(), (), named)

    def _json_request(
        self, endpoint: Endpoint, action: str, body: Mapping[str, Any], task_settings: Mapping[str, Any]
    ) -> Request:
        settings = endpoint.service_settings
        # The colon of "v2:0" stays: what is signed is then what is sent, whichever way the client spells a path.
        url = f"{_base(settings)}/model/{quote(str(settings['model']), safe=':')}/{action}"
        headers = urls.merged(urls.JSON, task_settings.get("headers"))
        if action == "converse-stream":
            headers["Accept"] = "application/vnd.amazon.eventstream"
        if key := endpoint.secrets.get("api_key"):
            return Request("POST", url, headers | {"Authorization": f"Bearer {key}"}, answers.write_json(body))
        unsigned = Request("POST", url, headers, answers.write_json(body))
        return signed(unsigned, endpoint.secrets, "bedrock", str(settings["region"]))


def _base(settings: Mapping[str, Any]) -> str:
    if url := settings.get("url"):
        return str(url).rstrip("/")
    region = settings["region"]
    return f"https://bedrock-runtime.{region}.amazonaws.com{'.cn' if str(region).startswith('cn-') else ''}"


def _titan_body(endpoint: Endpoint, texts: list[Any]) -> dict[str, Any]:
    if len(texts) != 1:
        raise InputInvalid(f"Titan embeds one text a request, not {len(texts)}; send them one by one.")
    return {"inputText": texts[0], "dimensions": endpoint.service_settings.get("dimensions")}


def _cohere_body(endpoint: Endpoint, texts: list[Any], input_type: str | None) -> dict[str, Any]:
    kind = INPUT_TYPES.get(input_type or "ingest", "search_document")
    return {"texts": texts, "input_type": kind, "output_dimension": endpoint.service_settings.get("dimensions")}


def _usage(document: Mapping[str, Any], response: Response) -> Usage:
    """Titan counts in the body, Cohere in a header."""
    stated = document.get("inputTextTokenCount", response.headers.get("x-amzn-bedrock-input-token-count", "0"))
    text = str(stated)
    return answers.usage({"usage": {"prompt_tokens": int(text) if text.isdigit() else 0}})


def _named(stated: str, status: int, error: ErrorBody) -> Named | None:
    """The outcome that the error's name gives; None for one that is in the tables of all services, or unknown."""
    name = snake(stated.rpartition("#")[2]).removesuffix("_exception")
    if name == "model_error" and error.status in (400, 413, 422):
        return None
    if name in ("validation", "validation_error", ""):
        if status == 400 and _NO_MODEL.search(error.message):
            return Named(OutcomeKind.NOT_FOUND, "model_not_found")
        if status == 400 and _UNFIT.search(error.message):
            return Named(OutcomeKind.REQUEST_REFUSED, "validation")
        return None
    return _ERRORS.get(name)


SERVICE = AmazonBedrock()
