"""What an installation gives: its metadata, its names, and nothing that another package could stumble over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata, util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("cli", "config", "stand_in", "tasks", "workers")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that knows nothing of this folder."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        env={**os.environ, **env},
    )


def test_the_metadata_says_what_an_index_shows() -> None:
    about = metadata.metadata("penstock")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (about["Name"], about["Version"]) == ("penstock", project["version"])
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "Apache-2.0"
    assert about.json["description"].startswith("# Penstock")


def test_the_changelog_knows_the_version() -> None:
    assert f"## {metadata.version('penstock')}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_command_is_installed() -> None:
    (script,) = (each for each in metadata.entry_points(group="console_scripts") if each.name == "penstock")
    assert script.value == "penstock.cli.main:main"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_ships_its_types(package: str) -> None:
    folder = import_module(f"penstock.{package}").__file__
    assert folder is not None
    assert Path(folder).with_name("py.typed").is_file()


def test_the_namespace_has_no_module_of_its_own() -> None:
    spec = util.find_spec("penstock")
    assert spec is not None
    assert spec.origin is None


@pytest.mark.parametrize("package", PACKAGES)
def test_no_bare_package_is_installed(package: str) -> None:
    done = python(f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is not None)")
    assert done.returncode == 0, f"`import {package}` finds something: it would shadow an application's own"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_bare_import_from_the_repository_says_what_to_import(package: str) -> None:
    done = python(f"import {package}", PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 1
    assert f"import penstock.{package}" in done.stderr.splitlines()[-1]


def test_the_tasks_are_the_public_names() -> None:
    tasks = import_module("penstock.tasks")
    assert set(tasks.__all__) == {"chunk", "embed", "complete", "generate_image", "result_from", "stream"}
    assert all(hasattr(tasks, name) for name in tasks.__all__)


def test_the_tasks_have_names_that_do_not_move() -> None:
    tasks = import_module("penstock.tasks")
    names = {tasks.chunk.name, tasks.embed.name, tasks.complete.name, tasks.generate_image.name}
    assert names == {"penstock.chunk", "penstock.embed", "penstock.complete", "penstock.generate_image"}


def test_importing_the_tasks_reads_no_environment_and_opens_no_connection() -> None:
    refuse = "import socket\nsocket.socket.connect = None\n"
    done = python(f"{refuse}import penstock.tasks", PENSTOCK_BROKER_URL="nonsense", PENSTOCK_HOME="/nonexistent/x")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_links_of_an_editable_install_point_into_the_tree() -> None:
    if not (REPOSITORY / ".git").exists():
        return  # an unpacked sdist has no such links and needs none
    links = {path.name: str(path.readlink()) for path in (REPOSITORY / ".src" / "penstock").iterdir()}
    assert links == {name: f"../../{name}" for name in PACKAGES}


def test_no_source_imports_a_bare_package() -> None:
    bare = re.compile(rf"^\s*(from|import) ({'|'.join(PACKAGES)})\b", re.MULTILINE)
    sources = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert [str(path) for path in sources if bare.search(path.read_text())] == []


def test_imports_point_downwards() -> None:
    above = {
        "config": "cli|stand_in|tasks|workers",
        "workers": "cli|stand_in|tasks",
        "tasks": "cli|stand_in",
        "stand_in": "cli|tasks|workers",
    }
    wrong = [
        str(path)
        for package, higher in above.items()
        for path in (REPOSITORY / package).rglob("*.py")
        if re.search(rf"^\s*(from|import) penstock\.({higher})\b", path.read_text(), re.MULTILINE)
    ]
    assert wrong == []


def test_the_stand_in_imports_nothing_of_ours_but_the_errors() -> None:
    ours = re.compile(r"^\s*(?:from|import) penstock\.(?!stand_in\b)([a-z_.]+)", re.MULTILINE)
    found = {name for path in (REPOSITORY / "stand_in").rglob("*.py") for name in ours.findall(path.read_text())}
    assert found == {"config.errors"}


def test_importing_the_tasks_leaves_an_application_its_own_celery_app() -> None:
    done = python(
        "from celery import Celery, current_app, shared_task\n"
        "mine = Celery('mine', broker='memory://')\n"
        "@shared_task\n"
        "def theirs(): ...\n"
        "from penstock.tasks import embed\n"
        "assert current_app._get_current_object() is mine\n"
        "assert theirs.app is mine\n"
    )
    assert done.returncode == 0, done.stderr
