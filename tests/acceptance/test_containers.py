"""The image and the compose file say things that hold: the schema, our commands, our variables."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.config.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
OURS = {name: each for name, each in COMPOSE["services"].items() if each["image"] == "penstock"}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)


def penstock(*argv: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "penstock.cli.main", *argv)


def test_the_compose_file_keeps_the_compose_specification() -> None:
    check = "check_jsonschema", "--builtin-schema", "vendor.compose-spec"
    done = run(sys.executable, "-m", *check, "docker-compose.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_a_command_that_exists_with_options_that_exist(service: str) -> None:
    command, *options = OURS[service]["command"]
    done = penstock(command, "--help")
    assert done.returncode == 0, done.stderr
    assert all(option.split("=")[0] in done.stdout for option in options)


@pytest.mark.parametrize("service", OURS)
def test_a_service_sets_variables_that_the_settings_know(service: str) -> None:
    known = {f"PENSTOCK_{name.upper()}" for name in Settings.model_fields}
    assert set(OURS[service]["environment"]) <= known


def test_the_broker_keeps_its_queues_over_a_restart() -> None:
    command = COMPOSE["services"]["valkey"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_no_secret_stands_in_the_compose_file() -> None:
    assert "${PENSTOCK_SECRET_KEY:?" in OURS["worker"]["environment"]["PENSTOCK_SECRET_KEY"]


def test_only_loopback_is_published() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_copies_what_the_wheel_is_made_of() -> None:
    copied = {word for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.M) for word in line.split()[:-1]}
    assert {"pyproject.toml", "README.md", "LICENSE", "cli", "config", "stand_in", "tasks", "workers"} <= copied
    assert all((REPOSITORY / name).exists() for name in copied)
    ignored = REPOSITORY / ".dockerignore"
    if ignored.exists():  # an sdist does not carry it
        assert copied <= {line[1:] for line in ignored.read_text().splitlines() if line.startswith("!")}


def test_the_image_runs_as_nobody_special_and_says_when_it_is_ill() -> None:
    assert re.search(r"^USER (?!root)\w+$", DOCKERFILE, re.M)
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (.+)$", DOCKERFILE, re.M)
    program, *words = shlex.split(check.partition(" | ")[0])
    assert program == "celery"
    options = run(sys.executable, "-m", "celery", "inspect", "--help").stdout
    assert all(word in options for word in words if word.startswith("-") and word != "-A")


def test_the_image_starts_a_worker() -> None:
    (entry,) = re.findall(r'^ENTRYPOINT \["penstock"\]$', DOCKERFILE, re.M)
    (command,) = re.findall(r'^CMD \["(\w+)"\]$', DOCKERFILE, re.M)
    assert entry
    assert penstock(command, "--help").returncode == 0
