"""An inference endpoint as the rest of the program sees it: validated, with its defaults filled in, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.config.endpoints.services import Caps, TaskType
from penstock.config.settings import REQUEST_TIMEOUT_S


@dataclass(frozen=True)
class RateLimit:
    """The configured quota. ``None`` is no limit of that kind; units are per minute."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(frozen=True)
class Endpoint:
    """A validated inference endpoint.

    Args:
        inference_id: its id, unique over all task types.
        task_type: what it does.
        service: the service's name.
        service_settings: the service's own settings without secrets, defaults filled in.
        secrets: opened secrets by name; absent from ``repr`` and from every message.
        task_settings: the stored task settings; a call's own override them.
        chunking_settings: validated settings, or None (then Elasticsearch's default for the task applies).
        rate_limit: the configured limits, the service's default included.
        caps: what a request may carry, ``max_inputs_per_request`` applied.
        timeout_s: how long one request may take, in seconds.
        quota: the name of the quota that this endpoint draws on; endpoints of one account and model share it.
        version: grows with each change of the endpoint; a parked lane looks at it.
    """

    inference_id: str
    task_type: TaskType
    service: str
    service_settings: Mapping[str, Any]
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    chunking_settings: Mapping[str, Any] | None = None
    rate_limit: RateLimit = RateLimit()
    caps: Caps = Caps()
    timeout_s: float = REQUEST_TIMEOUT_S
    quota: str = ""
    version: int = 0
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
