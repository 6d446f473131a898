"""One field against its declaration: types, bounds, choices, in the words of Elasticsearch's messages.

Every function returns the value to keep and the fault, one of them None.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any
from urllib.parse import urlsplit

from penstock.config.endpoints.masking import Mask
from penstock.config.endpoints.services import Setting

Checked = tuple[Any, str | None]

_TYPES = {
    "string": "String",
    "url": "String",
    "integer": "Integer",
    "number": "Double",
    "boolean": "Boolean",
    "strings": "List",
    "map": "Map",
}
_LARGEST = 2**63 - 1
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


def check(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    """Check one given value.

    Args:
        setting: its declaration.
        value: as it came from JSON, YAML or TOML; not None.
        scope: the object that holds it, for messages: ``service_settings`` or ``task_settings``.
        mask: hides secrets in messages.
    """
    kept, fault = _KINDS[setting.kind](setting, value, scope, mask)
    if fault is None and setting.choices and kept not in setting.choices:
        choices = ", ".join(sorted(setting.choices))
        fault = f"[{scope}] Invalid value [{_shown(setting, value, mask)}] received. " + (
            f"[{setting.name}] must be one of [{choices}]"
        )
    return (None, fault) if fault else (kept, None)


def wrong_type(name: str, value: Any, kind: str, mask: Mask, secret: bool = False) -> str:
    """Return the message for a value of the wrong JSON type."""
    shown = "***" if secret else mask.show(value, name)
    text = f"field [{name}] is not of the expected type. The value [{shown}] cannot be converted to a [{kind}]"
    if kind == "String" and isinstance(value, date | datetime | time):
        text += ": put it in quotes"  # TOML and YAML read 2024-02-01 as a date
    return text


def missing(name: str, scope: str) -> str:
    """Return the message for a required field that is not there."""
    return f"[{scope}] does not contain the required setting [{name}]"


def is_integer(value: Any) -> bool:
    """Tell whether a value is an integer of at most 64 bits; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; true and false are not."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _shown(setting: Setting, value: Any, mask: Mask) -> str:
    return "***" if setting.secret else mask.show(value, setting.name)


def _wrong(setting: Setting, value: Any, mask: Mask) -> Checked:
    return None, wrong_type(setting.name, value, _TYPES[setting.kind], mask, setting.secret)


def _string(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    if not isinstance(value, str):
        return _wrong(setting, value, mask)
    if not value.strip():
        return None, f"[{scope}] Invalid value empty string. [{setting.name}] must be a non-empty string"
    if (fault := _unsendable(value, setting.secret)) is not None:
        return None, f"[{scope}] Invalid value for [{setting.name}]: {fault}"
    return value, None


def _unsendable(text: str, secret: bool) -> str | None:
    """Say why a text could not travel in a header, a URL or JSON."""
    if secret and text != text.strip():
        return "it begins or ends with white space (a newline from a file?)"
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        return "it holds a control character or half a surrogate pair"
    if secret and not text.isascii():
        return "it holds characters that are not ASCII, which no key has"
    return None


def _url(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    kept, fault = _string(setting, value, scope, mask)
    if fault is not None:
        return None, fault
    if (reason := _url_fault(kept)) is not None:
        shown = mask.show(kept.partition("://")[0] + "://..." if "@" in kept else kept)
        return None, f"[{scope}] Invalid url [{shown}] received for field [{setting.name}]: {reason}"
    return kept, None


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it cannot be parsed"
    if parts.scheme not in ("http", "https"):
        return "it must start with http:// or https://"
    if not host or any(c.isspace() for c in url):
        return "it must have a host and no white space"
    if parts.username is not None or parts.password is not None:
        return "it must not carry a user or password; give the key in its own setting"
    return None


def _integer(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    if not is_integer(value):
        return _wrong(setting, value, mask)
    if setting.minimum is not None and setting.minimum >= 1 and value < 1:
        return None, f"[{scope}] Invalid value [{value}]. [{setting.name}] must be a positive integer"
    return _bounded(setting, value, scope)


def _number(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    if not is_number(value):
        return _wrong(setting, value, mask)
    return _bounded(setting, value, scope)


def _bounded(setting: Setting, value: float, scope: str) -> Checked:
    return value, bounds_fault(setting.name, value, scope, setting.minimum, setting.maximum)


def bounds_fault(name: str, value: float, scope: str, minimum: float | None, maximum: float | None) -> str | None:
    """Return the message for a number out of its bounds; Elasticsearch prints these as doubles."""
    start = f"[{scope}] Invalid value [{float(value)}]. [{name}] must be "
    if minimum is not None and value < minimum:
        return start + f"greater than or equal to [{float(minimum)}]"
    if maximum is not None and value > maximum:
        return start + f"less than or equal to [{float(maximum)}]"
    return None


def _boolean(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    return (value, None) if isinstance(value, bool) else _wrong(setting, value, mask)


def _strings(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return _wrong(setting, value, mask)
    if not value or not all(each.strip() for each in value):
        return None, f"[{scope}] Invalid value empty list. [{setting.name}] must be a list of non-empty strings"
    if any(_unsendable(each, setting.secret) for each in value):
        return None, f"[{scope}] Invalid value for [{setting.name}]: it holds a control character"
    return list(value), None


def _map(setting: Setting, value: Any, scope: str, mask: Mask) -> Checked:
    if not isinstance(value, Mapping):
        return _wrong(setting, value, mask)
    if (fault := json_fault(value)) is not None:
        return None, f"[{scope}] Invalid value for [{setting.name}]: {fault}"
    if setting.name == "headers" and (fault := _headers_fault(value)) is not None:
        return None, f"[{scope}] Invalid value for [headers]: {fault}"
    return dict(value), None


def _headers_fault(headers: Mapping[str, Any]) -> str | None:
    """HTTP's rules for names and values (RFC 9110, sections 5.1 and 5.5), checked before a client meets them."""
    if not all(_HEADER_NAME.fullmatch(name) for name in headers):
        return "a name of a header has letters, digits and hyphens only"
    texts = [str(value) if is_number(value) else value for value in headers.values()]
    if not all(isinstance(text, str) and _HEADER_VALUE.fullmatch(text) for text in texts):
        return "a header's value must be a text without control characters, in Latin-1"
    return None


def json_fault(value: Any) -> str | None:
    """Say why a value could not be written as JSON; None when it can."""
    if any(not isinstance(key, str) for key in value):
        return "its keys must be strings"
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        return None
    except RecursionError:
        return "it is nested too deeply"
    except (TypeError, ValueError, UnicodeError):
        return "it holds what JSON cannot: a date, a number that is not finite, half a surrogate pair"


_KINDS: dict[str, Callable[[Setting, Any, str, Mask], Checked]] = {
    "string": _string,
    "url": _url,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
    "map": _map,
}
