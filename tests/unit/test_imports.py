"""Imports point one way, and form no cycle: the contracts in ``pyproject.toml``, as ``lint-imports`` checks them."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_the_contracts_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(PYPROJECT), no_cache=True)
    told = capsys.readouterr().out
    assert code == 0, told
    assert "4 kept, 0 broken" in told
