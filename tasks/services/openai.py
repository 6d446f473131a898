"""OpenAI, and every server that speaks its dialect (llama.cpp, vLLM, Ollama, text-embeddings-inference) by ``url``.

Source: OpenAI's OpenAPI file of 2026-08 (``/embeddings``, ``/chat/completions``, ``/completions``,
``/images/generations``); settings as in Elasticsearch's ``openai`` inference service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Caps, ServiceSpec, Setting, TaskSpec, TaskType
from penstock.tasks.services.base import (
    CompleteCall,
    Completion,
    EmbedCall,
    Embeddings,
    ImageCall,
    ImageOperation,
    Request,
    Response,
    Service,
    StreamReader,
)
from penstock.tasks.services.wire import chat, embeddings, entra, images, refusals, urls
from penstock.tasks.services.wire.answers import Refuse, write_json
from penstock.tasks.services.wire.streams import ChatStream
from penstock.workers.lanes.outcome import Outcome

BASE = "https://api.openai.com/v1"
EMBEDDINGS, CHAT, LEGACY, IMAGES = "/embeddings", "/chat/completions", "/completions", "/images/generations"

_COMMON = (
    Setting("model_id", required=True, help="the model to use"),
    Setting("api_key", secret=True, help="a server without keys takes any text"),
    Setting("url", kind="url", help="the whole address, or a server's base such as http://localhost:8080/v1"),
    Setting("organization_id", help="sent as OpenAI-Organization"),
    *entra.SETTINGS,
    Setting("token_url", kind="url", help="where client credentials are changed for a token"),
)
SIMILARITY = Setting("similarity", choices=("cosine", "dot_product", "l2_norm"), default="dot_product")
DIMENSIONS = Setting("dimensions", kind="integer", minimum=1, help="length of the vectors, if the model can choose")
MAX_INPUT_TOKENS = Setting(
    "max_input_tokens", kind="integer", minimum=1, help="tokens an input may have, below the service's own cap"
)
TASK = (
    Setting("user", help="the end user, for the provider's abuse detection"),
    Setting("headers", kind="map", help="further HTTP headers"),
    Setting("parameters", kind="map", help="further fields of every request"),
)
EMBEDDING_TASK = (
    *TASK,
    Setting("encoding_format", choices=("base64", "float"), help="how the wire carries vectors; base64 by default"),
    Setting("replace_newlines", kind="boolean", help="send spaces for newlines, as old models wanted"),
)


def embedding_caps(settings: Mapping[str, Any]) -> Caps:
    """2048 inputs of 8192 tokens and 300,000 tokens a request (OpenAI's embeddings reference)."""
    return Caps(inputs=2048, input_tokens=min(8192, settings.get("max_input_tokens") or 8192), request_tokens=300_000)


def _account(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """OpenAI limits organizations and models; another server is another account."""
    names = ("organization_id", "api_key", "client_id", "client_secret", "model_id")
    return (urls.server(settings.get("url") or BASE), *(str(settings.get(name) or "") for name in names))


def _check(task_type: TaskType, settings: Mapping[str, Any], task_settings: Mapping[str, Any]) -> list[str]:
    return entra.faults(settings, ("client_id", "scopes", "token_url"))


class OpenAI(Service):
    """``openai`` and compatible servers."""

    spec = ServiceSpec(
        name="openai",
        tasks={
            TaskType.TEXT_EMBEDDING: TaskSpec(
                (*_COMMON, DIMENSIONS, SIMILARITY, MAX_INPUT_TOKENS), EMBEDDING_TASK, 3000, embedding_caps
            ),
            TaskType.COMPLETION: TaskSpec(_COMMON, TASK, 500),
            TaskType.CHAT_COMPLETION: TaskSpec(_COMMON, TASK, 500),
            TaskType.IMAGE_GENERATION: TaskSpec(_COMMON, TASK, 240),
        },
        exactly_one=(("api_key", "client_secret"),),
        account=_account,
        check=_check,
    )

    def embed_request(self, endpoint: Endpoint, call: EmbedCall) -> Request:
        """POST ``/embeddings``; vectors are asked for in base64, a third of the bytes of decimal numbers."""
        settings = endpoint.service_settings
        fields = {"model": settings["model_id"], "dimensions": settings.get("dimensions")}
        return self._json_request(
            endpoint, self._url(endpoint, EMBEDDINGS), embeddings.body(call, fields), call.task_settings
        )

    def read_embeddings(self, endpoint: Endpoint, call: EmbedCall, response: Response) -> Embeddings:
        """Check count, order, dimensions and numbers. Raises Refused."""
        return embeddings.read(response, call, endpoint.service_settings.get("dimensions"), self._refuse(endpoint))

    def complete_request(self, endpoint: Endpoint, call: CompleteCall) -> Request:
        """POST ``/chat/completions``; ``/completions`` if ``url`` is that, or the prompt is a list."""
        base = {"model": endpoint.service_settings["model_id"]}
        url = self._url(endpoint, CHAT)
        path = urls.path_of(url)
        if path.endswith(LEGACY) and not path.endswith(CHAT):
            body = chat.legacy_body(call, base)
        elif chat.wants_legacy(call):
            url, body = urls.with_path(url, path.removesuffix(CHAT) + LEGACY), chat.legacy_body(call, base)
        else:
            body = chat.chat_body(call, base)
        return self._json_request(endpoint, url, body, call.task_settings, stream=call.stream)

    def read_completion(self, endpoint: Endpoint, call: CompleteCall, response: Response) -> Completion:
        """Read the choices. Raises Refused."""
        return chat.read(response, call, self._refuse(endpoint))

    def stream_reader(self, endpoint: Endpoint, call: CompleteCall) -> StreamReader:
        """Return a reader of server-sent events that end with ``data: [DONE]``."""
        return ChatStream()

    def image_request(self, endpoint: Endpoint, call: ImageCall) -> Request:
        """POST ``/images/generations``, which answers with the images."""
        body = images.body(call, {"model": endpoint.service_settings["model_id"]})
        return self._json_request(endpoint, self._url(endpoint, IMAGES), body, call.task_settings)

    def read_image(self, endpoint: Endpoint, call: ImageCall, response: Response) -> ImageOperation:
        """Read the images. Raises Refused."""
        return images.read(response, self._refuse(endpoint))

    def token_request(self, endpoint: Endpoint) -> Request | None:
        """Ask for an access token, where the endpoint has client credentials in place of a key."""
        return entra.token_request(endpoint)

    def read_token(self, response: Response) -> tuple[str, float]:
        """Return the token and for how many seconds it lasts. Raises Refused."""
        return entra.read_token(response, self.clock())

    def refusal(self, response: Response, endpoint: Endpoint | None = None) -> Outcome:
        """Name a non-2xx answer, see ``refusals``."""
        return refusals.refusal(response, self.clock(), tuple(endpoint.secrets.values()) if endpoint else ())

    def _refuse(self, endpoint: Endpoint) -> Refuse:
        return lambda response: self.refusal(response, endpoint)

    def _url(self, endpoint: Endpoint, route: str) -> str:
        return urls.full_url(endpoint.service_settings.get("url") or BASE, route)

    def _json_request(
        self,
        endpoint: Endpoint,
        url: str,
        body: Mapping[str, Any],
        task_settings: Mapping[str, Any],
        *,
        stream: bool = False,
    ) -> Request:
        headers = (urls.STREAM if stream else urls.JSON) | self._auth(endpoint)
        return Request("POST", url, urls.merged(headers, task_settings.get("headers")), write_json(body))

    def _auth(self, endpoint: Endpoint) -> dict[str, str]:
        token = endpoint.secrets.get("access_token") or endpoint.secrets.get("api_key")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if organization := endpoint.service_settings.get("organization_id"):
            headers["OpenAI-Organization"] = organization
        return headers


SERVICE = OpenAI()
