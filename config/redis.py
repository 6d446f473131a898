"""Connections to Redis (or Valkey), and its errors in our words.

URLs are spelt as Celery spells them (``config.urls``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import redis
import redis.asyncio

from penstock.config.errors import BrokerUnavailable, ConfigurationError
from penstock.config.urls import REDIS_SCHEMES, hide_password

TIMEOUT_S = 5.0
_SSL_REQUIREMENTS = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}


def text(value: Any) -> str:
    """Return a part of an answer as text, whether its client decodes or not."""
    return value.decode() if isinstance(value, bytes) else str(value)


def connect(url: str, *, decode: bool = False, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """Return a client; it connects on first use.

    Args:
        url: ``redis://``, ``rediss://`` or ``redis+socket:///path?virtual_host=N``.
        decode: answer with strings in place of bytes.
        timeout_s: seconds for connecting and for each command; a blocking command must ask for less.

    Raises:
        ConfigurationError: the URL makes no sense.
    """
    with _url_errors(url):
        client: redis.Redis = redis.Redis.from_url(_client_url(url), **_options(decode, timeout_s))
    return client


def connect_async(url: str, *, decode: bool = False, timeout_s: float = TIMEOUT_S) -> redis.asyncio.Redis:
    """Return an asyncio client; arguments and errors as for ``connect``."""
    with _url_errors(url):
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(_client_url(url), **_options(decode, timeout_s))
    return client


def reachable(client: redis.Redis, url: str) -> None:
    """Check that the server answers.

    Raises:
        BrokerUnavailable: it does not, or refuses the user and password; the message has no password.
    """
    with translated(url):
        client.ping()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn redis-py's connection errors inside the block into ``BrokerUnavailable``, with the URL's password hidden."""
    try:
        yield
    except redis.exceptions.AuthenticationError as exc:
        raise BrokerUnavailable(
            f"the broker at {hide_password(url)} refuses the user or password: correct PENSTOCK_BROKER_URL "
            "(redis://user:password@host:port/0)"
        ) from exc
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as exc:
        raise BrokerUnavailable(
            f"the broker at {hide_password(url)} cannot be reached ({_reason(exc)}): start it, or correct "
            "PENSTOCK_BROKER_URL; unset, an embedded broker is used"
        ) from exc
    except redis.exceptions.ResponseError as exc:
        raise BrokerUnavailable(
            f"the broker at {hide_password(url)} refuses a command ({_reason(exc)}): see to its memory and disk, and "
            "that the user in PENSTOCK_BROKER_URL may use it"
        ) from exc


def _reason(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).strip().rstrip(".")


def _options(decode: bool, timeout_s: float) -> dict[str, Any]:
    return {
        "decode_responses": decode,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 30,
    }


def _client_url(url: str) -> str:
    """Respell Celery's URL as redis-py's: ``unix://`` with ``db``, and its names for certificate checks."""
    parts = urlsplit(url.strip())
    scheme = parts.scheme.lower()
    if scheme not in REDIS_SCHEMES:
        raise ValueError("it must start with " + ", ".join(f"{known}://" for known in REDIS_SCHEMES))
    _ = parts.port  # raises ValueError when the port is no number
    query = dict(parse_qsl(parts.query))
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = _SSL_REQUIREMENTS.get(query["ssl_cert_reqs"], query["ssl_cert_reqs"])
    if scheme == "redis+socket":
        return _socket_url(parts.netloc, parts.path, query)
    if parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise ValueError("the part after the host must be the number of a database, such as /0")
    return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")


def _socket_url(netloc: str, path: str, query: dict[str, str]) -> str:
    if not path.strip("/"):
        raise ValueError("it needs the path of a socket: redis+socket:///path/to/redis.sock?virtual_host=0")
    database = query.pop("virtual_host", query.pop("db", "0")).strip("/") or "0"
    user = netloc.rpartition("@")[0]
    return f"unix://{user + '@' if user else ''}{quote(path, safe='/%')}?{urlencode({**query, 'db': database})}"


@contextmanager
def _url_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise ConfigurationError(
            f"the broker URL {hide_password(url)} makes no sense ({exc}): correct PENSTOCK_BROKER_URL, for instance "
            "redis://localhost:6379/0"
        ) from None
