"""What of a value may be shown to people: never a secret, not even one that stands in the wrong place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock.config.urls import MASK

LONGEST = 100

# Names whose values are secret whatever the service says of them ("tokens" are counts).
_SECRET_NAME = re.compile(
    r"key(?!word)|secret|token(?!s)|passw|pwd|credential|auth|cookie|entra|bearer|signature", re.IGNORECASE
)
_SECRET_START = re.compile(r"(sk-|bearer\s|basic\s)", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9]{12,}")


def secret_name(name: object) -> bool:
    """Tell whether a field or header of this name is likely to hold a secret."""
    return bool(_SECRET_NAME.search(str(name)))


def secret_text(text: str) -> bool:
    """Tell whether a text looks like a key: a known beginning, or a long run of letters mixed with digits."""
    return bool(_SECRET_START.match(text)) or any(not run.isalpha() and not run.isdigit() for run in _RUN.findall(text))


def texts_in(value: Any) -> Iterator[str]:
    """Yield every scalar within a value as text."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from texts_in(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


class Mask:
    """Shows values in the form of Elasticsearch's messages, with what is secret replaced by ``***``.

    Args:
        secrets: texts known to be secret; a value that holds one of them is not shown.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(sorted({text for text in secrets if text}, key=len, reverse=True))

    def __repr__(self) -> str:
        return f"Mask({len(self._secrets)} secrets)"

    def show(self, value: Any, name: object = "", depth: int = 0) -> str:
        """Return a value as a message may show it; ``name`` is that of the field that holds it."""
        if secret_name(name) and value is not None:
            return MASK
        if isinstance(value, Mapping):
            return self._show_map(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return "[...]" if depth > 2 else "[" + ", ".join(self.show(each, "", depth + 1) for each in value) + "]"
        text = _scalar(value)
        if any(secret in text for secret in self._secrets) or (isinstance(value, str) and secret_text(text)):
            return MASK
        return _printable(text)

    def name(self, name: object) -> str:
        """Return the name of a field as a message may show it: keys are pasted in the place of names, too."""
        text = str(name)
        return MASK if any(secret in text for secret in self._secrets) or secret_text(text) else _printable(text)

    def scrub(self, message: str) -> str:
        """Return a message that somebody else wrote without the secrets known here (of eight characters and more)."""
        for secret in self._secrets:
            if len(secret) >= 8:
                message = message.replace(secret, MASK)
        return message

    def _show_map(self, value: Mapping[Any, Any], depth: int) -> str:
        if depth > 2:
            return "{...}"
        return "{" + ", ".join(f"{self.name(k)}={self.show(v, k, depth + 1)}" for k, v in value.items()) + "}"


class MaskedMap(dict[str, Any]):
    """A JSON object whose ``repr`` hides what in it is likely to be secret."""

    def __repr__(self) -> str:
        return repr(masked(dict(self)))


def masked(value: Any, name: object = "", in_headers: bool = False) -> Any:
    """Return a JSON value that may be shown: texts under the names of secrets, and texts that are keys, are ``***``.

    Args:
        value: the value.
        name: the field that holds it.
        in_headers: whether it is one of ``headers``, where any text that looks like a key is taken for one.
    """
    if isinstance(value, Mapping):
        return {key: masked(each, key, in_headers or name == "headers") for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each, name, in_headers) for each in value]
    if not isinstance(value, str):
        return value
    hidden = secret_name(name) or bool(_SECRET_START.match(value)) or (in_headers and secret_text(value))
    return MASK if hidden else value


def holds_mask(value: Any) -> bool:
    """Tell whether a value has a ``***`` in it: it came from GET and would overwrite the secret that it stands for."""
    return any(text == MASK for text in texts_in(value))


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "a number of more than 64 bits"  # str() of a huge int raises
    return str(value)


def _printable(text: str) -> str:
    short = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in short)
