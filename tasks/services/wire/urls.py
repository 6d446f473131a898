"""Addresses and headers of requests: what to append to a base, what counts as one server, whose header wins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_BASE_PATH = re.compile(r"(?:/.*)?/(?:v\d+\w*|openai|inference|models)$")
_PORTS = {"http": 80, "https": 443}


def full_url(url: str, route: str) -> str:
    """Return where to send: ``url`` as it is, or with ``route`` appended if it is only a server's base.

    As in Elasticsearch ``url`` is the whole address. A base is known by its path: none (then ``/v1`` goes before the
    route), or one whose last part is a version, ``openai``, ``inference`` or ``models``.
    ``http://localhost:8080``, ``http://localhost:8080/v1`` and ``http://localhost:8080/v1/embeddings`` are one.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path:
        return with_path(url, f"/v1{route}")
    return with_path(url, path + route) if _BASE_PATH.match(path) else url


def with_path(url: str, path: str, query: str | None = None) -> str:
    """The URL with another path, and another query if one is given."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query if query is None else query, ""))


def path_of(url: str) -> str:
    """The path without a slash at its end."""
    return urlsplit(url).path.rstrip("/")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; ``("", "", 0)`` for what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0


def server(url: str) -> str:
    """The origin as text: part of the name of an account."""
    scheme, host, port = origin(url)
    return f"{scheme}://{host}:{port}"


def merged(base: Mapping[str, str], extra: Any) -> dict[str, str]:
    """Headers with the user's own (``task_settings.headers``) over ours, whatever the case of their names."""
    own = {str(name): str(value) for name, value in extra.items()} if isinstance(extra, Mapping) else {}
    taken = {name.lower() for name in own}
    return {name: value for name, value in base.items() if name.lower() not in taken} | own


JSON = {"Content-Type": "application/json", "Accept": "application/json"}
STREAM = JSON | {"Accept": "text/event-stream"}
