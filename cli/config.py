"""``penstock config``: every variable, its value, where that came from, what it is for."""

from __future__ import annotations

import difflib
import os
from typing import Any

from penstock.cli import output
from penstock.cli.options import AsJson
from penstock.config.errors import ConfigurationError
from penstock.config.settings import PREFIX, SECRET_FIELDS, Settings, read_settings, variable
from penstock.config.urls import MASK, hide_password


def command(
    as_json: AsJson = False,
) -> None:
    """Show every setting: its variable, its value (secrets masked), where that came from and what it is for.

    Wrong values are named, and the exit code is then 2.
    """
    settings, faults = read_settings()
    rows = [_row(settings, field, faults.get(field)) for field in Settings.model_fields]
    if as_json:
        output.print_json({"settings": rows, "unknown": sorted(_unknown())})
    else:
        _print(rows)
    for name in sorted(_unknown()):
        output.warn(f"{name} is no setting of Penstock{_near(name)}")
    if faults:
        output.fail(ConfigurationError("; ".join(faults.values())))


def _row(settings: Settings, field: str, fault: str | None) -> dict[str, Any]:
    given = _given().get(variable(field))
    value = given if fault and given is not None else getattr(settings, field)
    return {
        "variable": variable(field),
        "value": _shown(field, value),
        "source": "environment" if given is not None else "default",
        "description": Settings.model_fields[field].description,
        "fault": fault,
    }


def _shown(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field not in SECRET_FIELDS:
        return value if isinstance(value, int | float) else str(value)
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return hide_password(text) if "://" in text else MASK


def _given() -> dict[str, str]:
    """Return the variables of ours that are set, by their names in upper case; an empty one counts as unset."""
    return {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX) and value}


def _unknown() -> set[str]:
    return set(_given()) - {variable(field) for field in Settings.model_fields}


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, [variable(field) for field in Settings.model_fields], n=1)
    return f": did you mean {near[0]}?" if near else ""


def _print(rows: list[dict[str, Any]]) -> None:
    output.print_table(
        ["variable", "value", "from", "what it is"],
        [
            [row["variable"], "(unset)" if row["value"] is None else row["value"], row["source"], row["description"]]
            for row in rows
        ],
    )
