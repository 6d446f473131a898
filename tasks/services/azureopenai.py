"""Azure OpenAI: deployments and api-versions, key or Entra ID, chat on your data, images by operation or at once.

Sources: Azure OpenAI REST API reference and its OpenAPI files 2023-06-01-preview, 2024-02-01 and 2024-10-21; settings
as in Elasticsearch's ``azureopenai`` inference service. Beyond it: ``url`` (a base in place of
``https://{resource_name}.openai.azure.com``), image generation, and what chat on your data needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Caps, ServiceSpec, Setting, TaskSpec, TaskType
from penstock.tasks.services.base import (
    CompleteCall,
    EmbedCall,
    ImageCall,
    ImageOperation,
    Request,
    Response,
)
from penstock.tasks.services.openai import (
    CHAT,
    DIMENSIONS,
    EMBEDDING_TASK,
    EMBEDDINGS,
    IMAGES,
    LEGACY,
    MAX_INPUT_TOKENS,
    SIMILARITY,
    TASK,
    OpenAI,
)
from penstock.tasks.services.wire import chat, embeddings, entra, images, urls

ON_YOUR_DATA = "/extensions/chat/completions"
OPERATIONS = 2

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_DATED = re.compile(r"\d{4}-\d\d-\d\d")
_COMMON = (
    Setting("resource_name", help="of the Azure OpenAI resource"),
    Setting("deployment_id", required=True, help="name of the deployed model"),
    Setting("api_version", required=True, help="such as 2024-10-21"),
    Setting("api_key", secret=True),
    Setting("entra_id", secret=True, help="an access token; it is sent as it is and never renewed"),
    *entra.SETTINGS,
    Setting("tenant_id", help="where client credentials are changed for a token"),
    Setting("token_url", kind="url", help="in place of login.microsoftonline.com, for other clouds"),
    Setting("url", kind="url", help="a base in place of https://{resource_name}.openai.azure.com"),
)
_IMAGES = (
    *_COMMON,
    Setting(
        "max_concurrent_operations",
        kind="integer",
        minimum=1,
        help="image operations in flight, for api-versions by which images are submitted and polled; 2 by default",
    ),
)
_CHAT = (
    *_COMMON,
    Setting("chatgpt_key", secret=True, help="chat on your data: sent as the header chatgpt_key"),
    Setting("search_key", secret=True, help="chat on your data: the key of data sources that have none of their own"),
)
_CHAT_TASK = (*TASK, Setting("chatgpt_url", kind="url", help="chat on your data: sent as the header chatgpt_url"))


def _caps(settings: Mapping[str, Any]) -> Caps:
    """2048 inputs of 8192 tokens; deployments that take 1 or 16 say so, and the lane learns it."""
    return Caps(inputs=2048, input_tokens=min(8192, settings.get("max_input_tokens") or 8192))


def _account(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Azure limits deployments, whoever asks and with whatever key."""
    return (_base(settings).lower(), str(settings.get("deployment_id") or ""))


def _check(task_type: TaskType, settings: Mapping[str, Any], task_settings: Mapping[str, Any]) -> list[str]:
    faults = entra.faults(settings, ("client_id", "scopes", "tenant_id"))
    resource, version = settings.get("resource_name"), str(settings.get("api_version") or "")
    if not resource and not settings.get("url"):
        faults.append("[service_settings] does not contain the required setting [resource_name]")
    elif resource and not _NAME.fullmatch(str(resource)):
        faults.append(
            f"[service_settings] Invalid value [{resource}]. [resource_name] takes letters, digits and hyphens: "
            "the part before .openai.azure.com"
        )
    if task_type is TaskType.IMAGE_GENERATION and _DATED.match(version) and version < "2023-06-01":
        faults.append(
            f"[service_settings] Invalid value [{version}]. [api_version] for images starts at 2023-06-01-preview"
        )
    return faults


def _base(settings: Mapping[str, Any]) -> str:
    """The resource's address, up to and without ``/openai``."""
    if url := settings.get("url"):
        return str(url).rstrip("/").removesuffix("/openai")
    return f"https://{settings.get('resource_name')}.openai.azure.com"


def _by_operation(settings: Mapping[str, Any]) -> bool:
    """Whether images are submitted and polled: api-versions 2023-06-01-preview to 2023-10-01-preview."""
    return "2023-06-01" <= str(settings.get("api_version")) < "2023-12-01"


class AzureOpenAI(OpenAI):
    """``azureopenai``. The bodies are OpenAI's without ``model``: the deployment is in the address."""

    spec = ServiceSpec(
        name="azureopenai",
        tasks={
            TaskType.TEXT_EMBEDDING: TaskSpec(
                (*_COMMON, DIMENSIONS, SIMILARITY, MAX_INPUT_TOKENS), EMBEDDING_TASK, 1440, _caps
            ),
            TaskType.COMPLETION: TaskSpec(_CHAT, _CHAT_TASK, 120),
            TaskType.CHAT_COMPLETION: TaskSpec(_CHAT, _CHAT_TASK, 120),
            TaskType.IMAGE_GENERATION: TaskSpec(_IMAGES, TASK, 6),
        },
        exactly_one=(("api_key", "entra_id", "client_secret"),),
        account=_account,
        check=_check,
    )

    def embed_request(self, endpoint: Endpoint, call: EmbedCall) -> Request:
        """POST ``/openai/deployments/{id}/embeddings``."""
        body = embeddings.body(call, {"dimensions": endpoint.service_settings.get("dimensions")})
        return self._json_request(endpoint, _deployed(endpoint, EMBEDDINGS), body, call.task_settings)

    def complete_request(self, endpoint: Endpoint, call: CompleteCall) -> Request:
        """POST ``chat/completions``, ``completions`` for a list of prompts, or ``extensions/chat/completions``.

        The last is for calls with ``dataSources`` (chat on your data, api-versions of 2023).
        """
        if chat.wants_legacy(call):
            route, body = LEGACY, chat.legacy_body(call, {})
        else:
            body = chat.chat_body(call, {})
            route = ON_YOUR_DATA if "dataSources" in body else CHAT
        headers: dict[str, str] = {}
        if route == ON_YOUR_DATA:
            headers = _on_your_data(endpoint, body)
        body.pop("chatgpt_url", None)
        request = self._json_request(endpoint, _deployed(endpoint, route), body, call.task_settings, stream=call.stream)
        return Request(request.method, request.url, urls.merged(headers, request.headers), request.body)

    def image_request(self, endpoint: Endpoint, call: ImageCall) -> Request:
        """Submit an operation (2023 previews) or POST ``images/generations`` of the deployment."""
        if _by_operation(endpoint.service_settings):
            url = _address(endpoint, "/images/generations:submit")
        else:
            url = _deployed(endpoint, IMAGES)
        return self._json_request(endpoint, url, images.body(call, {}), call.task_settings)

    def read_image(self, endpoint: Endpoint, call: ImageCall, response: Response) -> ImageOperation:
        """Read the images, or where the operation is. Raises Refused."""
        refuse = self._refuse(endpoint)
        if not _by_operation(endpoint.service_settings):
            return images.read(response, refuse)
        fallback = _address(endpoint, "/operations/images/{id}")
        return images.read_submitted(response, _base(endpoint.service_settings), fallback, refuse)

    def operations(self, endpoint: Endpoint) -> int:
        """2 where images are submitted and polled, Azure's default quota, unless the endpoint says otherwise."""
        if not _by_operation(endpoint.service_settings):
            return 0
        return int(endpoint.service_settings.get("max_concurrent_operations") or OPERATIONS)

    def poll_request(self, endpoint: Endpoint, poll_url: str) -> Request:
        """GET the operation. Raises Refused (``foreign_operation_location``) for another server's address."""
        return self._operation("GET", endpoint, poll_url)

    def read_poll(self, endpoint: Endpoint, poll_url: str, response: Response) -> ImageOperation:
        """Read an operation's state. Raises Refused."""
        return images.read_polled(response, poll_url, self._refuse(endpoint))

    def delete_request(self, endpoint: Endpoint, poll_url: str) -> Request | None:
        """DELETE the operation and its images; the service does so only when it has ended."""
        return self._operation("DELETE", endpoint, poll_url)

    def _operation(self, method: str, endpoint: Endpoint, poll_url: str) -> Request:
        url = images.own_url(_base(endpoint.service_settings), poll_url)
        return Request(method, url, {"Accept": "application/json"} | self._auth(endpoint))

    def _auth(self, endpoint: Endpoint) -> dict[str, str]:
        secrets = endpoint.secrets
        if token := secrets.get("access_token") or secrets.get("entra_id"):
            return {"Authorization": f"Bearer {token}"}
        return {"api-key": secrets["api_key"]} if "api_key" in secrets else {}


def _address(endpoint: Endpoint, path: str) -> str:
    settings = endpoint.service_settings
    return f"{_base(settings)}/openai{path}?{urlencode({'api-version': settings['api_version']})}"


def _deployed(endpoint: Endpoint, route: str) -> str:
    return _address(endpoint, f"/deployments/{quote(str(endpoint.service_settings['deployment_id']), safe='')}{route}")


def _on_your_data(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, str]:
    """Put the endpoint's keys where chat on your data wants them: into its headers and its data sources."""
    if search_key := endpoint.secrets.get("search_key"):
        body["dataSources"] = [_with_key(source, search_key) for source in body["dataSources"]]
    headers = {"chatgpt_url": body.get("chatgpt_url"), "chatgpt_key": endpoint.secrets.get("chatgpt_key")}
    return {name: str(value) for name, value in headers.items() if value}


def _with_key(source: Any, key: str) -> Any:
    if not isinstance(source, Mapping):
        return source
    return dict(source) | {"parameters": {"key": key} | dict(source.get("parameters") or {})}


SERVICE = AzureOpenAI()
