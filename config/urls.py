"""URLs of brokers and result back ends, as Celery spells them. Nothing here loads a client or opens a connection."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

REDIS_SCHEMES = ("redis", "rediss", "redis+socket")
BROKER_SCHEMES = (*REDIS_SCHEMES, "amqp", "amqps")
MASK = "***"

_SECRET_PARAMETERS = frozenset({"password", "ssl_password"})


def scheme_of(url: str) -> str:
    """Return a URL's scheme in lower case, empty when it has none."""
    scheme, mark, _ = url.strip().partition("://")
    return scheme.lower() if mark else ""


def is_redis(url: str) -> bool:
    """Tell whether a URL names a Redis-compatible server."""
    return scheme_of(url) in REDIS_SCHEMES


def hide_password(url: str) -> str:
    """Return a URL that may be shown: its passwords replaced by ``***``. Never raises."""
    try:
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:{MASK}@{host}" if at and ":" in user else parts.netloc
        query = parse_qsl(parts.query, keep_blank_values=True)
        shown = urlencode([(k, MASK if k.lower() in _SECRET_PARAMETERS else v) for k, v in query], safe="*/:")
        return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{shown}" if shown else "")
    except ValueError:
        return f"{scheme_of(url)}://{MASK}"


def state_url(broker_url: str, result_url: str) -> str:
    """Return the Redis that holds endpoints, lanes and jobs: the broker's, or the results' beside a RabbitMQ."""
    return broker_url if is_redis(broker_url) else result_url
