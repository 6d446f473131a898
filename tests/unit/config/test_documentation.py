"""docs/configuration.md lists the settings as they are."""

from __future__ import annotations

from pathlib import Path

from penstock.config.settings import Settings, variable

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def table() -> str:
    """The table as the page has it: variable, default, description."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "the user's data folder" if name == "home" else f"`{field.default}`"
        shown = "" if field.default is None else default
        description = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{variable(name)}` | {shown} | {description} |")
    return "\n".join(lines)


def test_every_variable_is_documented_in_the_words_of_its_setting() -> None:
    assert table() in PAGE.read_text(), f"docs/configuration.md needs this table:\n{table()}"
