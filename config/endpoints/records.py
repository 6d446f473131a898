"""An endpoint as it is stored in Redis and as GET shows it: secrets are encrypted in the one, absent from the other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock.config.endpoints import services
from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.masking import MaskedMap, masked
from penstock.config.endpoints.secrets import EncryptedSecrets, SecretBox
from penstock.config.endpoints.services import TaskType
from penstock.config.endpoints.validation import EndpointLimits, assemble, load_spec
from penstock.config.errors import ConfigurationError
from penstock.config.formats import ENDPOINT_RECORD, FIELD
from penstock.config.settings import Settings

# Task settings that hold a secret (a gateway's header, a data source's key) are encrypted whole, beside the secrets.
_ENCRYPTED_TASK_SETTINGS = "task_settings:"
_ENCRYPTED = "encrypted"


def to_record(endpoint: Endpoint, given: Mapping[str, Any], box: SecretBox) -> dict[str, Any]:
    """Return what is stored of an endpoint; JSON can hold it.

    Args:
        endpoint: validated, with its quota and version.
        given: the body's ``service_settings``: limits that the user did not give go on following the defaults.
        box: encrypts the secrets, and the task settings when something in them is likely to be secret.
    """
    plain = masked(dict(endpoint.task_settings))
    record: dict[str, Any] = {
        FIELD: ENDPOINT_RECORD.number,
        "task_type": str(endpoint.task_type),
        "service": endpoint.service,
        "service_settings": dict(endpoint.service_settings),
        "limits": {
            "rate_limit": dataclasses.asdict(endpoint.rate_limit),
            "max_inputs_per_request": given.get("max_inputs_per_request"),
            "timeout_s": given.get("timeout_s"),
        },
        "task_settings": plain,
        "chunking_settings": endpoint.chunking_settings,
        "quota": endpoint.quota,
        "version": endpoint.version,
        _ENCRYPTED: None,
    }
    values: dict[str, Any] = dict(endpoint.secrets)
    if plain != endpoint.task_settings:
        values[_ENCRYPTED_TASK_SETTINGS] = dict(endpoint.task_settings)
    if values:
        record[_ENCRYPTED] = box.encrypt(values, _bound_to(endpoint.inference_id, record))
    return record


def from_record(inference_id: str, record: str | bytes, box: SecretBox, settings: Settings) -> Endpoint:
    """Return the endpoint of a stored record; its secrets are decrypted when they are first read.

    Raises:
        FormatTooNew: a newer version wrote the record.
        ConfigurationError: the record is damaged, or of a service that this version does not know.
    """
    try:
        fields = upgraded(inference_id, json.loads(record))
        if fields["service"] not in services.SERVICES:
            raise ConfigurationError(
                f"endpoint [{inference_id}] is of the service [{fields['service']}], which this version of Penstock "
                f"does not know: upgrade, or `penstock endpoint delete {inference_id}`"
            )
        return _read(inference_id, fields, box, settings)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigurationError(
            f"the record of endpoint [{inference_id}] in the broker is damaged: put the endpoint again, or "
            f"`penstock endpoint delete {inference_id}`"
        ) from exc


def upgraded(inference_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields as this version writes them, whatever format they were stored in.

    Raises:
        FormatTooNew: a newer version wrote them.
    """
    fields = dict(fields)
    if ENDPOINT_RECORD.check(fields.get(FIELD), inference_id) < 2:
        fields[_ENCRYPTED] = fields.pop("sealed")
    return fields


def with_opened_secrets(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with its secrets decrypted, those among its task settings too.

    Raises:
        ConfigurationError: they were encrypted with another key.
    """
    opened: dict[str, Any] = dict(endpoint.secrets)
    task_settings = opened.pop(_ENCRYPTED_TASK_SETTINGS, endpoint.task_settings)
    return replace(endpoint, secrets=opened, task_settings=MaskedMap(task_settings))


def shown(endpoint: Endpoint, settings: Settings) -> dict[str, Any]:
    """Return an endpoint as Elasticsearch's GET shows it: no secrets, the rate limit always."""
    result: dict[str, Any] = {
        "inference_id": endpoint.inference_id,
        "task_type": str(endpoint.task_type),
        "service": endpoint.service,
        "service_settings": {**endpoint.service_settings, **_shown_limits(endpoint, settings)},
        "task_settings": masked(dict(endpoint.task_settings)),
    }
    if endpoint.chunking_settings is not None:
        result["chunking_settings"] = dict(endpoint.chunking_settings)
    return result


def _read(inference_id: str, fields: Mapping[str, Any], box: SecretBox, settings: Settings) -> Endpoint:
    encrypted: Mapping[str, str] = {}
    if fields[_ENCRYPTED]:
        bound_to = _bound_to(inference_id, fields)
        encrypted = EncryptedSecrets(box, fields[_ENCRYPTED], bound_to, f"endpoint [{inference_id}]")
    plain = Endpoint(
        inference_id,
        TaskType(fields["task_type"]),
        fields["service"],
        fields["service_settings"],
        fields["task_settings"],
        fields["chunking_settings"],
        quota=fields["quota"],
        version=fields["version"],
    )
    limits = fields["limits"]
    rates = EndpointLimits(RateLimit(**limits["rate_limit"]), limits["max_inputs_per_request"], limits["timeout_s"])
    return assemble(plain, load_spec(fields["service"]), rates, settings, encrypted)


def _bound_to(inference_id: str, fields: Mapping[str, Any]) -> str:
    """Return what the secrets are for: who can write to Redis must not be able to have a key sent elsewhere."""
    return json.dumps([inference_id, fields["service"], fields["service_settings"]], sort_keys=True)


def _shown_limits(endpoint: Endpoint, settings: Settings) -> dict[str, Any]:
    rates = {"requests_per_minute": _number(endpoint.rate_limit.requests_per_minute)}
    if endpoint.rate_limit.tokens_per_minute is not None:
        rates["tokens_per_minute"] = _number(endpoint.rate_limit.tokens_per_minute)
    limits: dict[str, Any] = {"rate_limit": rates}
    own = load_spec(endpoint.service).tasks[endpoint.task_type].caps(endpoint.service_settings).inputs
    if endpoint.caps.inputs < own:
        limits["max_inputs_per_request"] = endpoint.caps.inputs
    if endpoint.timeout_s != settings.request_timeout_s:
        limits["timeout_s"] = endpoint.timeout_s
    return limits


def _number(value: float | None) -> float | int | None:
    return int(value) if value is not None and float(value).is_integer() else value
