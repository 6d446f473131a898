"""Azure AI Model Inference: one API for many models, at a Foundry resource (``.../models``) or a serverless endpoint.

Sources: Azure AI Model Inference REST API reference (2024-05-01-preview) and its OpenAPI file; settings as in
Elasticsearch's ``azureaistudio`` inference service. Beyond it: ``model``, ``api_version``, ``dimensions``, chat as
messages, image embeddings, ``extra_parameters``, vectors in integer and binary types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Caps, ServiceSpec, Setting, TaskSpec, TaskType
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
from penstock.tasks.services.wire import answers, chat, embeddings, refusals, urls
from penstock.tasks.services.wire.streams import ChatStream
from penstock.tasks.services.wire.vectors import TYPES
from penstock.workers.lanes.outcome import Outcome

API_VERSION = "2024-05-01-preview"
EMBEDDINGS, IMAGE_EMBEDDINGS, CHAT, INFO = "/embeddings", "/images/embeddings", "/chat/completions", "/info"
DEFAULT_NEW_TOKENS = 64

_INPUT_TYPES = {"search": "query", "ingest": "document", "classification": "text", "clustering": "text"}
_NOT_FIELDS = embeddings.NOT_FIELDS | {"extra_parameters", "extra-parameters", "max_new_tokens"}
_EXTRA = ("error", "drop", "pass-through")
_COMMON = (
    Setting("api_key", required=True, secret=True),
    Setting("target", kind="url", required=True, help="such as https://NAME.services.ai.azure.com/models"),
    Setting("endpoint_type", required=True, choices=("token", "realtime")),
    Setting("provider", required=True, choices=("cohere", "databricks", "meta", "microsoft_phi", "mistral", "openai")),
    Setting("model", help="which model of the resource; endpoints of one model ignore it"),
    Setting("api_version", help=f"{API_VERSION} by default"),
)
_EMBEDDING = (*_COMMON, Setting("dimensions", kind="integer", minimum=1), Setting("similarity", choices=(
    "cosine", "dot_product", "l2_norm")), Setting("max_input_tokens", kind="integer", minimum=1))  # fmt: skip
_TASK = (
    Setting("headers", kind="map", help="further HTTP headers, such as azureml-model-deployment"),
    Setting("parameters", kind="map", help="further fields of every request"),
    Setting("extra_parameters", choices=_EXTRA, help="what the service does with fields it does not know"),
    Setting("extra-parameters", choices=_EXTRA, help="the same, spelled as the header is"),
)
_EMBEDDING_TASK = (
    *_TASK,
    Setting("user"),
    Setting("encoding_format", choices=tuple(TYPES), help="int8, uint8, binary and ubinary give integer arrays"),
    Setting("input_type", choices=("text", "query", "document")),
    Setting("replace_newlines", kind="boolean"),
)
_SAMPLING = (
    *_TASK,
    Setting("temperature", kind="number", minimum=0, maximum=2),
    Setting("top_p", kind="number", minimum=0, maximum=2),
    Setting("do_sample", kind="boolean"),
)


def _new_tokens(default: int | None) -> Setting:
    return Setting("max_new_tokens", kind="integer", minimum=1, default=default, help="sent as max_tokens")


def _caps(settings: Mapping[str, Any]) -> Caps:
    """Elasticsearch's 2048 inputs; Cohere's models take 96."""
    inputs = 96 if settings.get("provider") == "cohere" else 2048
    return Caps(inputs=inputs, input_tokens=min(8192, settings.get("max_input_tokens") or 8192))


def _account(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The target, as in Elasticsearch; a resource serves many models, each with its own quota."""
    return (str(settings.get("target") or "").rstrip("/"), str(settings.get("model") or ""))


def _check(task_type: TaskType, settings: Mapping[str, Any], task_settings: Mapping[str, Any]) -> list[str]:
    provider = settings.get("provider")
    if task_type is TaskType.TEXT_EMBEDDING and provider not in (None, "cohere", "openai"):
        return [
            f"[service_settings] Invalid value [{provider}]. [provider] must be one of [cohere, openai] "
            "for the task type [text_embedding]"
        ]
    return []


class AzureAIStudio(Service):
    """``azureaistudio``."""

    spec = ServiceSpec(
        name="azureaistudio",
        tasks={
            TaskType.TEXT_EMBEDDING: TaskSpec(_EMBEDDING, _EMBEDDING_TASK, 240, _caps),
            TaskType.COMPLETION: TaskSpec(_COMMON, (*_SAMPLING, _new_tokens(DEFAULT_NEW_TOKENS)), 240),
            TaskType.CHAT_COMPLETION: TaskSpec(_COMMON, (*_SAMPLING, _new_tokens(None)), 240),
            # Cohere's models take one image a request.
            TaskType.IMAGE_EMBEDDING: TaskSpec(_EMBEDDING, _EMBEDDING_TASK, 240),
        },
        account=_account,
        check=_check,
    )

    def embed_request(self, endpoint: Endpoint, call: EmbedCall) -> Request:
        """POST ``/embeddings``, or ``/images/embeddings`` for ``{"image": data URL, "text": ...}``."""
        settings = endpoint.service_settings
        pictures = endpoint.task_type is TaskType.IMAGE_EMBEDDING
        base = {
            "model": settings.get("model"),
            "dimensions": settings.get("dimensions"),
            "input_type": None if pictures else _INPUT_TYPES.get(call.input_type or ""),
        }
        inputs = embeddings.texts(call.inputs, bool(call.task_settings.get("replace_newlines")))
        # Base64 is asked for only where it is known to be there: other models answer 422.
        encoding = {"encoding_format": "base64"} if settings.get("provider") == "openai" else {}
        body = {"input": inputs} | encoding | base | embeddings.fields(call.task_settings, _NOT_FIELDS)
        return self._json_request(endpoint, IMAGE_EMBEDDINGS if pictures else EMBEDDINGS, body, call.task_settings)

    def read_embeddings(self, endpoint: Endpoint, call: EmbedCall, response: Response) -> Embeddings:
        """Check and decode; ``int8`` and ``binary`` give int8, ``uint8`` and ``ubinary`` uint8. Raises Refused."""
        encoding = embeddings.fields(call.task_settings).get("encoding_format") or "float"
        dimensions = endpoint.service_settings.get("dimensions")
        return embeddings.read(response, call, dimensions, self._refuse(endpoint), encoding)

    def complete_request(self, endpoint: Endpoint, call: CompleteCall) -> Request:
        """POST ``/chat/completions``."""
        given = chat.chat_body(call, {"model": endpoint.service_settings.get("model")})
        default = DEFAULT_NEW_TOKENS if endpoint.task_type is TaskType.COMPLETION else None
        limit = given.get("max_new_tokens", default)
        body = {name: value for name, value in given.items() if name not in _NOT_FIELDS}
        if "max_completion_tokens" not in body:
            body = {"max_tokens": limit} | body
        return self._json_request(endpoint, CHAT, body, call.task_settings, stream=call.stream)

    def read_completion(self, endpoint: Endpoint, call: CompleteCall, response: Response) -> Completion:
        """Read the choices. Raises Refused."""
        return chat.read(response, call, self._refuse(endpoint))

    def stream_reader(self, endpoint: Endpoint, call: CompleteCall) -> StreamReader:
        """Return a reader of server-sent events that end with ``data: [DONE]``."""
        return ChatStream()

    def info_request(self, endpoint: Endpoint) -> Request | None:
        """GET ``/info``; Azure OpenAI has none."""
        if endpoint.service_settings.get("provider") == "openai":
            return None
        headers = {"Accept": "application/json"} | _auth(endpoint)
        return Request("GET", _url(endpoint, INFO), urls.merged(headers, endpoint.task_settings.get("headers")))

    def read_info(self, response: Response) -> Mapping[str, str]:
        """Read name, type and provider of the model; the type is spelled with underscores. Raises Refused."""
        document = answers.read_json(response, self.refusal)
        names = ("model_name", "model_type", "model_provider_name")
        found = {name: answers.text_of(document, name) for name in names}
        return found | {"model_type": found["model_type"].replace("-", "_")}

    def refusal(self, response: Response, endpoint: Endpoint | None = None) -> Outcome:
        """Name a non-2xx answer, see ``refusals``."""
        return refusals.refusal(response, self.clock(), tuple(endpoint.secrets.values()) if endpoint else ())

    def _refuse(self, endpoint: Endpoint) -> answers.Refuse:
        return lambda response: self.refusal(response, endpoint)

    def _json_request(
        self,
        endpoint: Endpoint,
        route: str,
        body: Mapping[str, Any],
        task_settings: Mapping[str, Any],
        *,
        stream: bool = False,
    ) -> Request:
        headers = (urls.STREAM if stream else urls.JSON) | _auth(endpoint)
        if extra := task_settings.get("extra_parameters") or task_settings.get("extra-parameters"):
            headers["extra-parameters"] = str(extra)
        return Request(
            "POST", _url(endpoint, route), urls.merged(headers, task_settings.get("headers")), answers.write_json(body)
        )


def _auth(endpoint: Endpoint) -> dict[str, str]:
    """The key in both headers, for serverless endpoints read one and resources the other; Azure OpenAI wants one."""
    key = endpoint.secrets.get("api_key", "")
    if endpoint.service_settings.get("provider") == "openai":
        return {"api-key": key}
    return {"api-key": key, "Authorization": f"Bearer {key}"}


def _url(endpoint: Endpoint, route: str) -> str:
    """Where to send.

    A target that ends in a route is the whole address, and so is one of Azure OpenAI or a realtime endpoint
    (Elasticsearch's rule). To a resource (``/models``), a ``/v1`` or a bare endpoint the route is appended. The
    api-version is added, unless the target has one or is OpenAI's own dialect (``/v1``).
    """
    settings = endpoint.service_settings
    target = str(settings["target"])
    path = urls.path_of(target)
    routes = (IMAGE_EMBEDDINGS, EMBEDDINGS, CHAT)
    known = next((known for known in routes if path.endswith(known)), None)
    if known is not None:
        path = path.removesuffix(known) + (route if route == INFO else known)
    elif not _is_whole(settings, path):
        path += route
    query = dict(parse_qsl(urlsplit(target).query))
    if "api-version" not in query and (settings.get("api_version") or "/v1" not in path):
        query["api-version"] = str(settings.get("api_version") or API_VERSION)
    return urls.with_path(target, path, urlencode(query))


def _is_whole(settings: Mapping[str, Any], path: str) -> bool:
    whole = settings.get("provider") == "openai" or settings.get("endpoint_type") == "realtime"
    return whole and bool(path) and not path.endswith(("/models", "/v1"))


SERVICE = AzureAIStudio()
