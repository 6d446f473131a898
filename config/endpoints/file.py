"""The read-only file of endpoints (``PENSTOCK_ENDPOINTS_FILE``), with ``${VARIABLE}`` for secrets.

Either a list, each entry as GET shows an endpoint (``inference_id``, ``task_type``, ``service`` ...), or, handier in
TOML, a table by id::

    [endpoints.docs-embeddings]
    task_type = "text_embedding"
    service = "openai"
    service_settings = { api_key = "${OPENAI_API_KEY}", model_id = "text-embedding-3-small" }
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.config.endpoints.documents import parse_document
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.errors import ConfigurationError, EndpointInvalid
from penstock.config.settings import Settings

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What the file held when it was last read: its endpoints by id, and a mark that changes with them."""

    endpoints: Mapping[str, Endpoint]
    mark: str


class EndpointsFile:
    """The file, read again when it changes on disk.

    A change that makes the file wrong is logged and the last good endpoints stay: a slip of the editor does not stop
    the workers. At first reading a wrong file is an error.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: tuple[int, ...] | None = None
        self._contents = Contents({}, "")

    def read(self) -> Contents:
        """Return the endpoints; one ``stat`` when nothing has changed.

        Raises:
            ConfigurationError: the file cannot be read, is no valid document, or names a variable that is not set.
            EndpointInvalid: its endpoints break the rules; with every fault.
        """
        path = self._settings.endpoints_file
        if path is None:
            return self._contents
        first = self._seen is None
        try:
            seen = _signature(path)
            if seen != self._seen:
                contents = self._load(path, seen[0])
                self._seen, self._contents = seen, contents
        except ConfigurationError as exc:
            if first:
                raise
            if self._seen != (0,):
                _log.error("%s; going on with the endpoints as they were", exc)
                self._seen = (0,)  # once: the next good version has another signature
        return self._contents

    def _load(self, path: Path, version: int) -> Contents:
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        entries = _entries(parse_document(data, str(path)), path)
        filled = fill_variables(entries, str(path))
        endpoints = self._validated(filled, path, version)
        return Contents(endpoints, hashlib.sha256(repr(filled).encode(errors="replace")).hexdigest()[:12])

    def _validated(self, entries: list[Any], path: Path, version: int) -> dict[str, Endpoint]:
        endpoints: dict[str, Endpoint] = {}
        faults: list[str] = []
        for n, entry in enumerate(entries, 1):
            inference_id = entry.get("inference_id")
            where = f"{path}: endpoint [{inference_id}]" if isinstance(inference_id, str) else f"{path}: endpoint {n}"
            try:
                endpoint = validate_endpoint(entry.get("task_type"), inference_id, entry, self._settings)
            except EndpointInvalid as exc:
                faults += [f"{where}: {fault}" for fault in exc.faults]
                continue
            if endpoint.inference_id in endpoints:
                faults.append(f"{where}: the id stands twice in the file")
            endpoints[endpoint.inference_id] = replace(endpoint, version=version)
        if faults:
            raise EndpointInvalid(faults)
        return endpoints


def fill_variables(document: Any, name: str) -> Any:
    """Return a document with environment variables in place of ``${NAME}`` in its strings; ``$${`` is a plain ``${``.

    Args:
        document: as it was parsed: the values cannot break its syntax.
        name: of the file, for errors.

    Raises:
        ConfigurationError: variables are not set; names them all.
    """
    missing: dict[str, None] = {}
    filled = _fill(document, missing)
    if missing:
        raise ConfigurationError(f"{name}: it asks for environment variables that are not set: {', '.join(missing)}")
    return filled


def _signature(path: Path) -> tuple[int, ...]:
    """Microseconds of the last change, then what else tells a new file from the old one."""
    try:
        state = path.stat()
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    return state.st_mtime_ns // 1000, state.st_size, state.st_ino, state.st_ctime_ns


def _unreadable(path: Path, exc: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"PENSTOCK_ENDPOINTS_FILE: {path} cannot be read ({exc.strerror}): correct the path or its permissions"
    )


def _entries(document: Any, path: Path) -> list[dict[str, Any]]:
    if isinstance(document, Mapping) and "endpoints" in document:
        document = document["endpoints"]
    elif isinstance(document, Mapping) and "inference_id" in document:
        document = [document]
    if isinstance(document, Mapping):
        entries = [_with_id(str(name), body, path) for name, body in document.items()]
    elif isinstance(document, list):
        entries = [_entry(body, path) for body in document]
    else:
        raise ConfigurationError(f"{path}: it must hold a list or a table of endpoints under 'endpoints'")
    return entries


def _entry(body: Any, path: Path) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise ConfigurationError(
            f"{path}: an endpoint must be an object with inference_id, task_type, service and service_settings"
        )
    return dict(body)


def _with_id(name: str, body: Any, path: Path) -> dict[str, Any]:
    entry = _entry(body, path)
    if entry.setdefault("inference_id", name) != name:
        raise ConfigurationError(f"{path}: endpoint [{name}] has another inference_id in its own table")
    return entry


def _fill(value: Any, missing: dict[str, None]) -> Any:
    if isinstance(value, Mapping):
        return {name: _fill(each, missing) for name, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, missing) for each in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        if match[1]:
            return "${"
        name = match[2].strip()
        if not _NAME.fullmatch(name):
            missing["one whose name is no variable's name (write $${ for a literal ${)"] = None
        elif name not in os.environ:
            missing[name] = None
        return os.environ.get(name, "")

    return _VARIABLE.sub(found, value)
