"""The endpoints that this deployment knows: those put into Redis, and those of the read-only file.

Its keys are ``ENDPOINTS``, ``ENDPOINTS_VERSION`` and ``ENDPOINTS_SALT`` of ``penstock.config.names``; secrets stand
there only as Fernet tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets as random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import redis

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.file import EndpointsFile
from penstock.config.endpoints.near import not_found
from penstock.config.endpoints.records import from_record, shown, to_record, with_opened_secrets
from penstock.config.endpoints.secrets import SecretBox
from penstock.config.endpoints.validation import load_spec, validate_endpoint
from penstock.config.errors import ConfigurationError, EndpointInvalid, EndpointNotFound, PenstockError
from penstock.config.formats import ENDPOINT_RECORD, FIELD
from penstock.config.names import endpoint_quotas_key, endpoints_key, endpoints_salt_key, endpoints_version_key
from penstock.config.redis import text, translated
from penstock.config.settings import Settings
from penstock.config.urls import hide_password


@dataclass(frozen=True)
class Listing:
    """All endpoints.

    Args:
        endpoints: those that can be read, by id.
        unreadable: ids of records that are damaged, or of a newer version: what is wrong with each.
    """

    endpoints: list[Endpoint]
    unreadable: dict[str, PenstockError]


class Registry:
    """Endpoints by id.

    Args:
        client: of the Redis that holds them (``penstock.config.redis.connect``); it may decode or not.
        settings: for the keys' prefix, the file, the secret key and the default time-out.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client, self._settings = client, settings
        self._box = SecretBox(settings)
        self._file = EndpointsFile(settings)
        self._key = endpoints_key(settings.key_prefix)
        self._version_key = endpoints_version_key(settings.key_prefix)
        self._quotas_key = endpoint_quotas_key(settings.key_prefix)
        self._salt: bytes | None = None
        self._cached: tuple[str, dict[str, Endpoint]] = ("", {})

    def put(self, task_type: str, inference_id: str, body: Any) -> Endpoint:
        """Validate and store an endpoint.

        An id that exists is replaced. Elasticsearch refuses ("Inference endpoint [x] already exists"), since indices
        may lean on it; here a put is how a key is renewed or a limit changed, and the lanes see it by ``version``. Only
        another task type under the same id is refused: messages of the old kind may be waiting.

        Args:
            task_type: such as ``text_embedding``.
            inference_id: the id.
            body: Elasticsearch's: ``service``, ``service_settings``, ``task_settings``, ``chunking_settings``.

        Raises:
            EndpointInvalid: the body breaks the rules; with every fault.
            FormatTooNew: a newer version stored the endpoint that this would replace.
            ConfigurationError: the id belongs to the read-only file, or to an endpoint of another task type.
            BrokerUnavailable: Redis cannot be reached.
        """
        endpoint = validate_endpoint(task_type, inference_id, body, self._settings)
        self._refuse_file(inference_id)
        with translated(self._url):
            version = max(self._now(), self._old_version(endpoint) + 1)
            endpoint = replace(endpoint, version=version, quota=self._quota(endpoint))
            self._write(endpoint, to_record(endpoint, body["service_settings"], self._box))
        return endpoint

    def get(self, inference_id: str) -> Endpoint:
        """Return an endpoint with its secrets decrypted. One cheap read while nothing has changed.

        Raises:
            EndpointNotFound: no endpoint has this id.
            ConfigurationError: its secrets were encrypted with another key; the message names PENSTOCK_SECRET_KEY.
            BrokerUnavailable: Redis cannot be reached.
        """
        with translated(self._url):
            version = self.version()
            if self._cached[0] != version:
                self._cached = (version, {})
                self._salt = None  # the server may have lost its data
            cache = self._cached[1]
            if inference_id not in cache:
                cache[inference_id] = with_opened_secrets(self._find(inference_id))
            return cache[inference_id]

    def find(self, inference_id: str) -> Endpoint:
        """Return an endpoint as ``list`` does: its secrets are decrypted when they are read. Errors as for ``get``."""
        with translated(self._url):
            return self._find(inference_id)

    def list(self) -> list[Endpoint]:
        """Return all endpoints that can be read, by id; see ``read``."""
        return self.read().endpoints

    def read(self) -> Listing:
        """Return all endpoints. Secrets are decrypted when they are read: this needs no key.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        endpoints: dict[str, Endpoint] = {}
        unreadable: dict[str, PenstockError] = {}
        with translated(self._url):
            stored = cast("dict[Any, Any]", self._client.hgetall(self._key))
            for name, record in stored.items():
                inference_id = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
                try:
                    endpoints[inference_id] = self._built(inference_id, record)
                except PenstockError as exc:  # its own fault, and no other's
                    unreadable[inference_id] = exc
            endpoints |= self._from_file()
        readable = [endpoints[inference_id] for inference_id in sorted(endpoints)]
        return Listing(readable, {name: error for name, error in sorted(unreadable.items()) if name not in endpoints})

    def delete(self, inference_id: str) -> None:
        """Remove an endpoint and its secrets.

        Raises:
            EndpointNotFound: no endpoint has this id.
            ConfigurationError: it belongs to the read-only file.
        """
        self._refuse_file(inference_id)
        with translated(self._url):
            with self._client.pipeline(transaction=True) as pipe:
                pipe.hdel(self._key, inference_id)
                pipe.hdel(self._quotas_key, inference_id)
                pipe.set(self._version_key, self._mark())
                removed = pipe.execute()[0]
            if not removed:
                raise self._not_found(inference_id)

    def version(self) -> str:
        """Return a mark that changes whenever any endpoint changes, those of the file included: one GET and a stat."""
        with translated(self._url):
            mark = self._client.get(self._version_key)
        return f"{text(mark) if mark else '0'}.{self._file.read().mark}"

    def shown(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return an endpoint as Elasticsearch's GET shows it: no secrets, the rate limit always."""
        return shown(endpoint, self._settings)

    def prepare(self, task_type: str, inference_id: str, body: Any) -> Endpoint:
        """Return what ``put`` would store, without storing it: to verify it with a call first. Errors as for put."""
        self._refuse_file(inference_id)
        endpoint = validate_endpoint(task_type, inference_id, body, self._settings)
        with translated(self._url):
            return replace(endpoint, quota=self._quota(endpoint))

    @property
    def _url(self) -> str:
        return _address(self._client)

    def _refuse_file(self, inference_id: str) -> None:
        if inference_id in self._file.read().endpoints:
            raise ConfigurationError(
                f"endpoint [{inference_id}] comes from {self._settings.endpoints_file}, which is read-only "
                "(PENSTOCK_ENDPOINTS_FILE): edit the file"
            )

    def _from_file(self) -> dict[str, Endpoint]:
        endpoints = self._file.read().endpoints
        return {name: replace(endpoint, quota=self._quota(endpoint)) for name, endpoint in endpoints.items()}

    def _find(self, inference_id: str) -> Endpoint:
        if (endpoint := self._file.read().endpoints.get(inference_id)) is not None:
            return replace(endpoint, quota=self._quota(endpoint))
        record = self._client.hget(self._key, inference_id) if isinstance(inference_id, str) else None
        if record is None:
            raise self._not_found(inference_id)
        return self._built(inference_id, record)

    def _built(self, inference_id: str, record: str | bytes) -> Endpoint:
        return from_record(inference_id, record, self._box, self._settings)

    def _not_found(self, inference_id: str) -> EndpointNotFound:
        known = [text(name) for name in cast("list[Any]", self._client.hkeys(self._key))]
        return not_found(inference_id, [*known, *self._file.read().endpoints])

    def _old_version(self, endpoint: Endpoint) -> int:
        """Return the version that a put replaces, 0 when there is none or it cannot be read."""
        record = self._client.hget(self._key, endpoint.inference_id)
        try:
            old = json.loads(text(record)) if record is not None else {}
            ENDPOINT_RECORD.check(old.get(FIELD), endpoint.inference_id)
            task_type, version = old.get("task_type", endpoint.task_type), int(old.get("version", 0))
        except (ValueError, AttributeError, TypeError):
            return 0
        if task_type != endpoint.task_type:
            raise EndpointInvalid(
                [
                    f"Inference endpoint [{endpoint.inference_id}] already exists with task type [{task_type}]: delete "
                    f"it first (`penstock endpoint delete {endpoint.inference_id}`), or choose another id"
                ]
            )
        return version

    def _write(self, endpoint: Endpoint, record: Mapping[str, Any]) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(self._key, endpoint.inference_id, json.dumps(record))
            pipe.hset(self._quotas_key, endpoint.inference_id, endpoint.quota)
            pipe.set(self._version_key, self._mark())
            pipe.execute()

    def _quota(self, endpoint: Endpoint) -> str:
        """Name the quota of the provider's account and model: a keyed hash, the same on all hosts of this Redis."""
        settings = {**endpoint.service_settings, **endpoint.secrets}
        account = [endpoint.service, *load_spec(endpoint.service).account(settings)]
        digest = hmac.new(self._account_salt(), json.dumps(account, default=str).encode(), hashlib.sha256)
        return f"{endpoint.service}-{digest.hexdigest()[:16]}"

    def _account_salt(self) -> bytes:
        if self._salt is None:
            key = endpoints_salt_key(self._settings.key_prefix)
            self._client.set(key, random.token_hex(32), nx=True)
            self._salt = text(self._client.get(key)).encode()
        return self._salt

    def _now(self) -> int:
        """Microseconds by Redis's clock: the hosts' own may differ."""
        seconds, microseconds = self._client.time()
        return seconds * 1_000_000 + microseconds

    def _mark(self) -> str:
        return f"{self._now():x}-{random.token_hex(3)}"


def _address(client: redis.Redis) -> str:
    kwargs = client.connection_pool.connection_kwargs
    if "path" in kwargs:
        return f"redis+socket://{kwargs['path']}?virtual_host={kwargs.get('db') or 0}"
    return hide_password(f"redis://{kwargs.get('host')}:{kwargs.get('port')}/{kwargs.get('db') or 0}")
