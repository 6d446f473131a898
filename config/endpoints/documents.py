"""Reading a JSON, YAML or TOML document that a person wrote: errors say the line and column."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import PurePath
from typing import Any

from penstock.config.errors import ConfigurationError

FORMATS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}
LARGEST = 4 << 20

_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_HARMLESS = re.compile(r"[^\w]*|<[a-z ]+>|\\\w{1,3}")


def parse_document(data: bytes, name: str) -> Any:
    """Return what a document holds.

    Args:
        data: its bytes, UTF-8 with or without a byte order mark.
        name: of the file, for errors; its ending tells the format. Without a known ending (stdin) JSON is tried where
            the text begins like JSON, then TOML, then YAML.

    Raises:
        ConfigurationError: it is empty, not UTF-8, too large or breaks its format's rules.
    """
    if len(data) > LARGEST:
        raise ConfigurationError(f"{name}: it has {len(data)} bytes, {LARGEST} are allowed: is it the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{name}: it is not UTF-8 text (byte {exc.start}): save it as UTF-8") from None
    if not text.strip():
        raise ConfigurationError(f"{name}: it is empty")
    kind = FORMATS.get(PurePath(name).suffix.lower()) or _guess(text)
    try:
        return _PARSERS[kind](text, name)
    except RecursionError:
        raise ConfigurationError(f"{name}: it is nested too deeply") from None


def _guess(text: str) -> str:
    if text.lstrip().startswith(("{", "[{")):
        return "JSON"
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return "YAML"
    return "TOML"


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise _broken(name, "JSON", f"line {exc.lineno}, column {exc.colno}", exc.msg) from None
    except ValueError as exc:  # an integer of thousands of digits
        raise _broken(name, "JSON", "", str(exc).partition(":")[0]) from None


def _toml(text: str, name: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # tomllib ends its message with "(at line 3, column 7)" or "(at end of document)".
        message, _, place = str(exc).partition(" (at ")
        if place.startswith("end of document"):
            place = f"line {text.count(chr(10)) + 1}, at the end"
        raise _broken(name, "TOML", place.rstrip(")"), _without_value(message)) from None
    except ValueError as exc:
        raise _broken(name, "TOML", "", str(exc).partition(":")[0]) from None


def _without_value(message: str) -> str:
    """Drop what a parser quotes of the document, for it may be a key; its punctuation and ``<stream end>`` stay."""
    return _QUOTED.sub(lambda found: found[0] if _HARMLESS.fullmatch(found[1] or found[2] or "") else "'...'", message)


def _yaml(text: str, name: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain data; 2024-02-01 stays a string, as an API version must."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to declare them
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _broken(name, "YAML", place, _without_value(str(exc.problem or exc.context))) from None
    except (yaml.YAMLError, ValueError, TypeError) as exc:
        raise _broken(name, "YAML", "", _without_value(str(exc))) from None


def _broken(name: str, kind: str, place: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: {place + ': ' if place else ''}this is not valid {kind}: {reason}")


_PARSERS = {"JSON": _json, "TOML": _toml, "YAML": _yaml}
