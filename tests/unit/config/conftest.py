"""What the tests of the configuration share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.config.settings import Settings
from support.fake_service import body, fake_service

__all__ = ["fake_service"]


@pytest.fixture(autouse=True)
def with_fake_service(fake_service: Any) -> None:
    """The service ``fake`` beside the real ones."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of the test's own."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def make_body() -> Any:
    """``body(**changes)``: a valid body of the fake service."""
    return body
