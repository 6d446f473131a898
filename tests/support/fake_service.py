"""A small service of the tests' own, so that the rules of all services are tested apart from any vendor's settings."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from penstock.config.endpoints import services
from penstock.config.endpoints.services import Caps, ServiceSpec, Setting, TaskSpec, TaskType

SECRET = "sk-0123456789abcdefSENTINEL"

_COMMON = (
    Setting("model", required=True),
    Setting("api_key", secret=True),
    Setting("token_secret", secret=True),
    Setting("url", kind="url"),
)
_EMBEDDING = (
    *_COMMON,
    Setting("dimensions", kind="integer", minimum=1, maximum=4096),
    Setting("similarity", choices=("cosine", "dot_product"), default="cosine"),
    Setting("scopes", kind="strings"),
    Setting("extra", kind="map"),
    Setting("fast", kind="boolean"),
)
_TASK = (
    Setting("user"),
    Setting("temperature", kind="number", minimum=0, maximum=2),
    Setting("headers", kind="map"),
)


def _check(task_type: TaskType, settings: Mapping[str, Any], task_settings: Mapping[str, Any]) -> list[str]:
    if settings["model"] == "forbidden":
        return [f"[service_settings] the model is forbidden to {settings['api_key']}"]
    return []


FAKE = ServiceSpec(
    name="fake",
    tasks={
        TaskType.TEXT_EMBEDDING: TaskSpec(_EMBEDDING, _TASK, 3000, lambda settings: Caps(96, 512, 10_000)),
        TaskType.COMPLETION: TaskSpec(_COMMON, _TASK, 120),
        TaskType.IMAGE_GENERATION: TaskSpec((Setting("model", required=True),)),
    },
    exactly_one=(("api_key", "token_secret"),),
    account=lambda settings: (str(settings.get("url")), settings.get("api_key", ""), settings["model"]),
    check=_check,
)


@pytest.fixture
def fake_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceSpec]:
    """The service ``fake`` beside the real ones."""
    module: Any = types.ModuleType("fake_service")
    module.SERVICE = types.SimpleNamespace(spec=FAKE)
    monkeypatch.setitem(sys.modules, "fake_service", module)
    monkeypatch.setitem(services.SERVICES, "fake", "fake_service")
    services.load_service.cache_clear()
    yield FAKE
    services.load_service.cache_clear()


def body(**changes: Any) -> dict[str, Any]:
    """Return a valid body of the fake service; ``service_settings`` are merged, None removes a key."""
    settings = {"model": "m", "api_key": SECRET} | changes.pop("service_settings", {})
    whole = {"service": "fake", "service_settings": settings, **changes}
    return {name: value for name, value in whole.items() if value is not None}
