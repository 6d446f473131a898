"""An endpoint's body against its service's declaration, in Elasticsearch's words.

The rules of all services are here; what is a service's own (its fields, its ways to authenticate, further checks)
comes from its ``ServiceSpec``. All faults of one body are reported together. No message carries a secret's value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.config.endpoints import services
from penstock.config.endpoints.chunking import check_chunking
from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.fields import check, is_number, missing, wrong_type
from penstock.config.endpoints.masking import Mask, MaskedMap, holds_mask, secret_name, texts_in
from penstock.config.endpoints.services import ServiceSpec, Setting, TaskSpec, TaskType
from penstock.config.errors import ConfigurationError, EndpointInvalid
from penstock.config.settings import LONGEST_REQUEST_S, Settings

SERVICE, TASK, CHUNKING = "service_settings", "task_settings", "chunking_settings"
LONGEST_ID = 200  # with the queue's prefix and class it fits AMQP's 255 bytes

CHUNKED = frozenset({TaskType.TEXT_EMBEDDING})

MAX_INPUTS = Setting("max_inputs_per_request", "integer", minimum=1)
TIMEOUT = Setting("timeout_s", "number", maximum=LONGEST_REQUEST_S)
RATES = ("requests_per_minute", "tokens_per_minute")

_ID = re.compile(r"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?")


@dataclass(frozen=True)
class EndpointLimits:
    """What every service's ``service_settings`` take besides the service's own; None where the user said nothing.

    ``rate_limit`` is already complete: the service's default where the user said nothing.
    """

    rate_limit: RateLimit
    max_inputs_per_request: int | None = None
    timeout_s: float | None = None


@dataclass
class _Report:
    """The faults found so far, and what may be shown in them."""

    mask: Mask
    faults: list[str] = field(default_factory=list)

    def add(self, *faults: str | None) -> None:
        self.faults.extend(fault for fault in faults if fault)


def validate_endpoint(task_type: str, inference_id: str, body: Any, settings: Settings) -> Endpoint:
    """Check an endpoint's body and return the endpoint, its defaults filled in.

    ``quota`` and ``version`` are the registry's to fill in.

    Args:
        task_type: from the path (the command's argument).
        inference_id: from the path.
        body: ``service``, ``service_settings``, ``task_settings``, ``chunking_settings``; GET's ``inference_id`` and
            ``task_type`` may stand there too, if they agree with the path.
        settings: for the default time-out.

    Raises:
        EndpointInvalid: with every fault.
        ConfigurationError: the service needs a package that is not installed.
    """
    report = _Report(Mask(_likely_secrets(body)))
    report.add(_id_fault(inference_id, report.mask))
    kind = _task_type(task_type, report)
    if not isinstance(body, Mapping):
        report.add(f"Model configuration must be an object with a service and service_settings, got {_named(body)}")
        raise EndpointInvalid(report.faults)
    report.add(*_path_faults(task_type, inference_id, body, report.mask))
    spec = _spec(body, report)
    if spec is not None and kind is not None and kind not in spec.tasks:
        report.add(f"The [{spec.name}] service does not support task type [{kind}]")
    if spec is None or kind is None or kind not in spec.tasks:
        raise EndpointInvalid(report.faults)
    report.mask = Mask([*_likely_secrets(body), *_declared_secrets(body, spec.tasks[kind])])
    endpoint = _endpoint(kind, inference_id, body, spec, report, settings)
    if report.faults:
        raise EndpointInvalid([report.mask.scrub(fault) for fault in report.faults])
    return endpoint


def assemble(
    endpoint: Endpoint, spec: ServiceSpec, limits: EndpointLimits, settings: Settings, secrets: Mapping[str, str]
) -> Endpoint:
    """Return the endpoint with what follows from its limits and its service: rate limit, caps, time-out."""
    caps = spec.tasks[endpoint.task_type].caps(endpoint.service_settings)
    if limits.max_inputs_per_request is not None:
        caps = dataclasses.replace(caps, inputs=min(caps.inputs, limits.max_inputs_per_request))
    timeout_s = settings.request_timeout_s if limits.timeout_s is None else limits.timeout_s
    return dataclasses.replace(
        endpoint,
        rate_limit=limits.rate_limit,
        caps=caps,
        timeout_s=timeout_s,
        task_settings=MaskedMap(endpoint.task_settings),
        secrets=secrets,
    )


def load_spec(name: str) -> ServiceSpec:
    """Return a service's declaration.

    Raises:
        KeyError: no service has this name.
        ConfigurationError: it needs a package that is not installed.
    """
    try:
        spec: ServiceSpec = services.load_service(name).spec
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"The [{name}] service needs the Python package '{exc.name}', which is not installed"
        ) from exc
    return spec


def _endpoint(
    kind: TaskType, inference_id: str, body: Mapping[str, Any], spec: ServiceSpec, report: _Report, settings: Settings
) -> Endpoint:
    """Check what the body holds. The answer means nothing when the report has faults."""
    task = spec.tasks[kind]
    given, limits = _service_settings(body, spec, task, report)
    task_given = _task_settings(body, spec, task, report)
    chunking = None
    if kind in CHUNKED:
        chunking, faults = check_chunking(body.get(CHUNKING), report.mask)
        report.add(*faults)
    report.add(_unknown(_leftover(body, kind), spec, report.mask))
    report.add(*(_mask_fault(name) for name in (SERVICE, TASK) if holds_mask(body.get(name))))
    report.add(*_own_checks(kind, spec, given, task_given, bool(report.faults)))
    if report.faults:
        return Endpoint(inference_id, kind, spec.name, {})
    names = {setting.name for setting in task.service_settings if setting.secret}
    plain = {name: value for name, value in given.items() if name not in names}
    secrets = {name: value for name, value in given.items() if name in names}
    endpoint = Endpoint(inference_id, kind, spec.name, plain, task_given, chunking)
    return assemble(endpoint, spec, limits, settings, secrets)


def _likely_secrets(body: Any) -> list[str]:
    """Return what stands under names that are likely to be secret, before the service is known."""
    if not isinstance(body, Mapping):
        return []
    maps = [body, *(value for value in body.values() if isinstance(value, Mapping))]
    found = [texts_in(value) for each in maps for name, value in each.items() if secret_name(name)]
    return [text for texts in found for text in texts]


def _declared_secrets(body: Mapping[str, Any], task: TaskSpec) -> list[str]:
    given = body.get(SERVICE)
    names = {setting.name for setting in task.service_settings if setting.secret}
    if not isinstance(given, Mapping):
        return []
    return [text for name, value in given.items() if name in names for text in texts_in(value)]


def _id_fault(inference_id: Any, mask: Mask) -> str | None:
    if not isinstance(inference_id, str) or not _ID.fullmatch(inference_id):
        return (
            f"Invalid inference_id; '{mask.show(inference_id)}' can contain lowercase alphanumeric (a-z and 0-9), "
            "hyphens or underscores; must start and end with alphanumeric"
        )
    if len(inference_id) > LONGEST_ID:
        return f"Invalid inference_id; it has {len(inference_id)} characters, {LONGEST_ID} are allowed"
    return None


def _task_type(task_type: Any, report: _Report) -> TaskType | None:
    if task_type is None or task_type == "":
        report.add("Task type must not be null")
        return None
    try:
        return TaskType(task_type)
    except ValueError:
        known = ", ".join(TaskType)
        report.add(f"Unknown task_type [{report.mask.show(task_type)}]; it must be one of [{known}]")
        return None


def _path_faults(task_type: Any, inference_id: Any, body: Mapping[str, Any], mask: Mask) -> list[str]:
    faults = []
    for name, path in (("inference_id", inference_id), ("task_type", task_type)):
        given = body.get(name)
        if given is not None and given != path:
            faults.append(
                f"Cannot resolve conflicting {name} parameter in the request URL [{mask.show(path)}] "
                f"and the request body [{mask.show(given)}]"
            )
    return faults


def _spec(body: Mapping[str, Any], report: _Report) -> ServiceSpec | None:
    name = body.get("service")
    if name is None:
        report.add("Model configuration is missing a service")
    elif not isinstance(name, str):
        report.add(wrong_type("service", name, "String", report.mask))
    elif name not in services.SERVICES:
        near = difflib.get_close_matches(name, services.SERVICES, n=1)
        hint = f"did you mean [{near[0]}]?" if near else f"it must be one of [{', '.join(services.SERVICES)}]"
        report.add(f"Unknown service [{report.mask.show(name)}]; {hint}")
    else:
        return load_spec(name)
    return None


def _service_settings(
    body: Mapping[str, Any], spec: ServiceSpec, task: TaskSpec, report: _Report
) -> tuple[dict[str, Any], EndpointLimits]:
    """Return the service's own settings, secrets among them, and the limits."""
    given = body.get(SERVICE)
    default = EndpointLimits(RateLimit(requests_per_minute=float(task.requests_per_minute)))
    if given is None:
        report.add(f"Missing required field [{SERVICE}]")
        return {}, default
    if not isinstance(given, Mapping):
        report.add(wrong_type(SERVICE, given, "Map", report.mask))
        return {}, default
    declared = {setting.name for setting in task.service_settings}
    groups = [[name for name in group if name in declared] for group in spec.exactly_one]
    kept = _checked(task.service_settings, given, SERVICE, report, {name for group in groups for name in group})
    report.add(*(_group_fault(group, given) for group in groups if group))
    limits = _limits(given, spec, default, report)
    known = declared | {"rate_limit", MAX_INPUTS.name, TIMEOUT.name}
    report.add(_unknown({k: v for k, v in given.items() if k not in known}, spec, report.mask))
    return kept, limits


def _task_settings(body: Mapping[str, Any], spec: ServiceSpec, task: TaskSpec, report: _Report) -> dict[str, Any]:
    given = body.get(TASK)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        report.add(wrong_type(TASK, given, "Map", report.mask))
        return {}
    kept = _checked(task.task_settings, given, TASK, report)
    known = {setting.name for setting in task.task_settings}
    report.add(_unknown({k: v for k, v in given.items() if k not in known}, spec, report.mask))
    return kept


def _checked(
    declared: Sequence[Setting],
    given: Mapping[str, Any],
    scope: str,
    report: _Report,
    grouped: set[str] | frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the valid ones of the declared settings, with defaults; those of ``grouped`` have their own rule."""
    kept = {}
    for setting in declared:
        value = given.get(setting.name)
        if value is not None:
            value, fault = check(setting, value, scope, report.mask)
            report.add(fault)
        elif setting.required and setting.name not in grouped:
            report.add(missing(setting.name, scope))
        elif setting.default is not None:
            value = setting.default
        if value is not None:
            kept[setting.name] = value
    return kept


def _group_fault(group: Sequence[str], given: Mapping[str, Any]) -> str | None:
    """Exactly one of a group must be given: the ways to authenticate."""
    found = [name for name in group if given.get(name) is not None]
    if len(found) == 1:
        return None
    names = ", ".join(f"[{name}]" for name in group[:-1]) + f" or [{group[-1]}]"
    if not found:
        first = missing(group[0], SERVICE)
        return first if len(group) == 1 else f"{first}; exactly one of {names} must be set"
    both = " and ".join(f"[{name}]" for name in found)
    return f"[{SERVICE}] must have exactly one of {names} set, not both {both}"


def _limits(given: Mapping[str, Any], spec: ServiceSpec, default: EndpointLimits, report: _Report) -> EndpointLimits:
    inputs, timeout = given.get(MAX_INPUTS.name), given.get(TIMEOUT.name)
    if inputs is not None:
        inputs, fault = check(MAX_INPUTS, inputs, SERVICE, report.mask)
        report.add(fault)
    if timeout is not None:
        timeout, fault = check(TIMEOUT, timeout, SERVICE, report.mask)
        if timeout is not None and timeout <= 0:
            fault = f"[{SERVICE}] Invalid value [{float(timeout)}]. [{TIMEOUT.name}] must be a positive number"
        report.add(fault)
    return EndpointLimits(_rate_limit(given, spec, default.rate_limit, report), inputs, timeout)


def _rate_limit(given: Mapping[str, Any], spec: ServiceSpec, default: RateLimit, report: _Report) -> RateLimit:
    """Read ``rate_limit``: a key that is not there keeps the default, an explicit null is no limit."""
    limits = given.get("rate_limit")
    if limits is None:
        return default
    if not isinstance(limits, Mapping):
        report.add(wrong_type("rate_limit", limits, "Map", report.mask))
        return default
    kept = {}
    for name in RATES:
        value = limits.get(name)
        if name not in limits:
            continue
        if value is not None and not is_number(value):
            report.add(wrong_type(name, value, "Double", report.mask))
        elif value is not None and value <= 0:
            report.add(f"[rate_limit] Invalid value [{value}]. [{name}] must be a positive number")
        else:
            kept[name] = None if value is None else float(value)
    report.add(_unknown({k: v for k, v in limits.items() if k not in RATES}, spec, report.mask))
    return dataclasses.replace(default, **kept)


def _unknown(left: Mapping[Any, Any], spec: ServiceSpec, mask: Mask) -> str | None:
    if not left:
        return None
    return f"Model configuration contains settings [{mask.show(left)}] unknown to the [{spec.name}] service"


def _leftover(body: Mapping[str, Any], kind: TaskType) -> dict[str, Any]:
    known = {"service", SERVICE, TASK, "inference_id", "task_type"} | ({CHUNKING} if kind in CHUNKED else set())
    # GET shows chunking_settings as null where there are none: that may come back.
    return {k: v for k, v in body.items() if k not in known and not (k == CHUNKING and v is None)}


def _mask_fault(scope: str) -> str:
    return f"[{scope}] holds [***], which stands for a secret that is never shown: give the secret itself again"


def _own_checks(
    kind: TaskType, spec: ServiceSpec, given: Mapping[str, Any], task_given: Mapping[str, Any], faulty: bool
) -> list[str]:
    """Run the service's own rules. They may trip over fields that are missing or wrong: those are reported already."""
    if not faulty:
        return spec.check(kind, given, task_given)
    with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError):
        return spec.check(kind, given, task_given)
    return []


def _named(value: Any) -> str:
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"
