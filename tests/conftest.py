"""Fixtures that every tier uses. What they start, they end, by pid; nothing is left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pytest_celery import CeleryWorkerCluster

# ``support`` is found whatever the folder that pytest is started from.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from penstock.workers.runtime import close_runtime
from support import nodes, stall_watch
from support.harness import Harness, temporary_folder
from support.harness import harness as make_harness
from support.key_leaks import leaks_of
from support.stand_in import StandIn
from support.valkey import ValkeyServer
from support.waiting import wait_until as _wait_until
from support.worker import Worker


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it, nor a real key or proxy."""
    for name in list(os.environ):
        if name.startswith(("PENSTOCK_", "CELERY_", "FLOWER_", "OPENAI_", "AZURE_", "AWS_")):
            monkeypatch.delenv(name)
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            monkeypatch.delenv(name)
    close_runtime()  # it keeps the settings that it was made with


# A deadline is an assertion on the clock: who runs into it has a busy machine.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


class StallReports:
    """What blocked an event loop since one last asked (``support.stall_watch``)."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._positions = folder, dict[Path, int]()

    def take(self) -> list[str]:
        return stall_watch.read(self._folder, self._positions)


@pytest.fixture(scope="session", autouse=True)
def stall_reports() -> Iterator[StallReports]:
    """Watch the worker's event loop, in this process and in all workers that tests and commands start."""
    watched = str(Path(stall_watch.__file__).with_name("watched"))
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(stall_watch.FOLDER, str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [watched, os.environ.get("PYTHONPATH", "")])))
        stall_watch.start(folder)
        yield StallReports(folder)


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(stall_reports: StallReports) -> Iterator[None]:
    """No callback of a worker's event loop blocked it."""
    yield
    found = stall_reports.take()
    assert not found, "\n".join(found)


@pytest.fixture(autouse=True)
def no_key_leaks() -> Iterator[None]:
    """Nothing stays in Redis for ever but what ``config/names.py`` says (``support.key_leaks``).

    It is looked at when the test's own fixtures have ended what they started.
    """
    yield
    leaks = [leak for server in ValkeyServer.running for leak in leaks_of(server.port)] + ValkeyServer.leaks
    ValkeyServer.leaks.clear()
    assert not leaks, f"keys that never expire, and should: {leaks}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A fresh folder with a short path."""
    with temporary_folder() as path:
        yield path


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh ``PENSTOCK_HOME`` with a short path, set in the environment."""
    path = folder / "home"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("PENSTOCK_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """One real server for the whole run of one test process (each xdist worker has its own)."""
    with make_harness() as made:
        yield made.start_server()


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> ValkeyServer:
    """The real server, empty. To kill one, take ``mortal``."""
    valkey_server.flush()
    return valkey_server


@pytest.fixture
def broker_url(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty real broker, also set as ``PENSTOCK_BROKER_URL``."""
    monkeypatch.setenv("PENSTOCK_BROKER_URL", valkey.url)
    return valkey.url


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """``wait_until(predicate, reason, timeout=15)``, also importable from ``support.waiting``."""
    return _wait_until


@pytest.fixture
def harness(folder: Path) -> Iterator[Harness]:
    """Starts whatever a test needs, and ends it."""
    with make_harness(folder) as made:
        yield made


@pytest.fixture
def mortal(harness: Harness) -> ValkeyServer:
    """A broker of the test's own with an append-only file, to be killed."""
    return harness.start_server(persistent=True)


@pytest.fixture
def stand_in(harness: Harness) -> Callable[..., StandIn]:
    """Start stand-in endpoints: ``stand_in(rpm=600, fault={"500": 0.03}).url``."""
    return harness.start_stand_in


@pytest.fixture
def worker(harness: Harness) -> Callable[..., list[Worker]]:
    """Start workers, and wait until they take tasks: ``worker(2, args=("-c", "50"), PENSTOCK_HEARTBEAT_S="1")``."""
    return harness.start_workers


# pytest-celery's fixtures, on local processes (``support.nodes``) ----------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nodes", choices=["local", "docker"], default="local", help="what pytest-celery's nodes are")


@pytest.fixture
def in_docker(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--nodes") == "docker")


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest, in_docker: bool, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The broker; the environment names it too."""
    if in_docker:
        node = request.getfixturevalue("celery_redis_broker")
        monkeypatch.setenv("PENSTOCK_BROKER_URL", node.config()["host_url"])
        return node
    request.getfixturevalue("broker_url")
    return nodes.broker_node(request.getfixturevalue("valkey"))


@pytest.fixture
def celery_backend(request: pytest.FixtureRequest, in_docker: bool, celery_broker: Any) -> Any:
    """The broker's server: our results stand where our messages do."""
    return celery_broker if in_docker else nodes.backend_node(request.getfixturevalue("valkey"))


@pytest.fixture
def celery_setup_cls() -> type[nodes.Setup]:
    return nodes.Setup


@pytest.fixture
def celery_setup_name() -> str:
    return "setup"


@pytest.fixture
def celery_worker_cluster(
    request: pytest.FixtureRequest, in_docker: bool, harness: Harness, celery_setup_app: Any
) -> Iterator[CeleryWorkerCluster]:
    """The workers that the test's ``workers`` mark asks for, when they take tasks."""
    app, n, args, env = nodes.wanted(request)
    if in_docker:
        start = nodes.docker_workers(request.getfixturevalue("docker_client"), os.environ["PENSTOCK_BROKER_URL"])
    else:
        start = nodes.local_workers(harness)
    cluster = CeleryWorkerCluster(*start(app, n, args, env, celery_setup_app))
    cluster.ready()
    yield cluster
    for node in cluster:
        node.teardown()
