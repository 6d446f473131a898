"""The table of services names tests that exist, settings that exist, and every service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.config.endpoints.services import SERVICES
from penstock.tasks.services.base import Service
from support.wire import service

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent.parent.parent / "docs" / "services.md"


def test_every_test_that_the_table_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCS.read_text()))
    there = {name for file in HERE.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    assert len(named) > 40
    assert named <= there, sorted(named - there)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_described_with_all_of_its_settings(name: str) -> None:
    text = DOCS.read_text()
    start = text.index(f"\n## `{name}`")
    section = text[start : text.index("\n## ", start + 1)] + text[: text.index("\n## ")]
    for task_type, task in service(name).spec.tasks.items():
        assert f"`{task_type}`" in section
        settings = [setting.name for setting in (*task.service_settings, *task.task_settings)]
        missing = [n for n in settings if f"`{n}`" not in section and n != "extra-parameters"]
        if name == "azureopenai":  # "as for openai"
            shared = service("openai").spec.tasks[task_type]
            missing = [
                n for n in missing if n not in {s.name for s in (*shared.service_settings, *shared.task_settings)}
            ]
        assert missing == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_a_service_with_its_own_name(name: str) -> None:
    found = service(name)
    assert isinstance(found, Service)
    assert found.spec.name == name
    for task in found.spec.tasks.values():
        names = [setting.name for setting in task.service_settings]
        assert len(names) == len(set(names))
        assert task.caps({}).inputs >= 1


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_reads_a_socket_a_file_or_the_environment(name: str) -> None:
    folder = Path(__import__(SERVICES[name], fromlist=["x"]).__file__ or "").parent
    forbidden = re.compile(r"^\s*(?:import|from) (?:os|socket|httpx|aiohttp|requests|pathlib|asyncio)\b|\bopen\(", re.M)
    for file in folder.glob("*.py"):
        assert not forbidden.search(file.read_text()), file
