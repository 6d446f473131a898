"""What a service declares about its endpoints, and the table of services.

A service is one file or folder under ``penstock.tasks.services`` with a ``SERVICE`` object: its settings (this module's
types, read by the validation of endpoints) and its wire formats. It is named here by string, so that imports still
point downwards; adding a service is its file, one line in ``SERVICES`` and its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import import_module
from typing import Any, Literal


class TaskType(StrEnum):
    """Kinds of work. The first three are Elasticsearch's; the others are ours."""

    TEXT_EMBEDDING = "text_embedding"
    COMPLETION = "completion"
    CHAT_COMPLETION = "chat_completion"
    IMAGE_GENERATION = "image_generation"
    IMAGE_EMBEDDING = "image_embedding"


Kind = Literal["string", "url", "integer", "number", "boolean", "strings", "map"]


@dataclass(frozen=True)
class Setting:
    """One key of ``service_settings`` or ``task_settings``.

    Args:
        name: the key.
        kind: the type of its value; ``strings`` is a list of strings, ``map`` a JSON object.
        required: whether an endpoint must have it.
        secret: write-only; encrypted at rest and never shown.
        minimum, maximum: inclusive bounds of a number.
        choices: the values allowed, if they are few.
        default: what GET shows when the user gave nothing; None shows nothing.
        help: one line for people.
    """

    name: str
    kind: Kind = "string"
    required: bool = False
    secret: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    default: Any = None
    help: str = ""


@dataclass(frozen=True)
class Caps:
    """What one request may carry at most. ``None`` is no limit."""

    inputs: int = 1
    input_tokens: int | None = None
    request_tokens: int | None = None


@dataclass(frozen=True)
class TaskSpec:
    """What a service takes for one task type.

    Args:
        service_settings, task_settings: the service's own keys. ``rate_limit``, ``timeout_s`` and
            ``max_inputs_per_request`` are every service's and are not repeated here.
        requests_per_minute: the default limit, as in Elasticsearch.
        caps: may depend on the settings (Bedrock: the model's provider).
    """

    service_settings: tuple[Setting, ...]
    task_settings: tuple[Setting, ...] = ()
    requests_per_minute: int = 240
    caps: Callable[[Mapping[str, Any]], Caps] = field(default=lambda settings: Caps())


@dataclass(frozen=True)
class ServiceSpec:
    """A service's settings.

    Args:
        name: the value of ``service`` in an endpoint's body.
        tasks: by task type.
        exactly_one: groups of keys of which exactly one must be given (ways to authenticate).
        account: the parts that make up the provider's account and model: endpoints for which they are equal share one
            quota. It sees the secrets; the registry keeps only a keyed hash of the answer.
        check: further rules; returns messages, an empty list when all is well. Arguments: task type,
            service settings, task settings.
    """

    name: str
    tasks: Mapping[TaskType, TaskSpec]
    exactly_one: tuple[tuple[str, ...], ...] = ()
    account: Callable[[Mapping[str, Any]], tuple[str, ...]] = field(default=lambda settings: ())
    check: Callable[[TaskType, Mapping[str, Any], Mapping[str, Any]], list[str]] = field(
        default=lambda task_type, service_settings, task_settings: []
    )


SERVICES: dict[str, str] = {
    "openai": "penstock.tasks.services.openai",
    "azureopenai": "penstock.tasks.services.azureopenai",
    "azureaistudio": "penstock.tasks.services.azureaistudio",
    "amazonbedrock": "penstock.tasks.services.amazonbedrock.service",
    "cohere": "penstock.tasks.services.cohere",
}


@cache
def load_service(name: str) -> Any:
    """Return the ``SERVICE`` object of a service (``penstock.tasks.services.base.Service``).

    Raises:
        KeyError: no service has this name.
    """
    return import_module(SERVICES[name]).SERVICE
