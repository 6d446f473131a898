"""pytest-celery's nodes: brokers, back ends and workers as local processes in the place of containers, or in Docker.

Tests take ``celery_setup`` and say by a mark which workers they want; the fixtures are in ``tests/conftest.py``::

    @pytest.mark.workers(2, "-c", "20", PENSTOCK_HEARTBEAT_S="1")
    def test_it(celery_setup): ...

``--nodes docker`` has the broker of pytest-celery's own container and workers of this project's image, on the host's
network, so that they reach the stand-in. It is prepared and has not been run: no machine of ours has had Docker.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import celery
import pytest
from pytest_celery import CeleryTestBackend, CeleryTestBroker, CeleryTestContainer, CeleryTestSetup, CeleryTestWorker

from support.app import close_app, own_app
from support.harness import Harness
from support.valkey import ValkeyServer
from support.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_APP = "penstock.workers.app"


class LocalContainer(CeleryTestContainer):
    """A process of ours that is to pytest-celery what a container is. Whoever started it ends it."""

    attrs: Mapping[str, Any] = {"Config": {"Hostname": "127.0.0.1"}}

    def __init__(self, name: str) -> None:  # there is no container of Docker's to give to the base class
        self._name = name

    @property
    def id(self) -> str:
        return self._name

    @property
    def name(self) -> str:
        return self._name

    def reload(self) -> None:
        """Nothing is remembered of a process that could be stale."""

    def teardown(self) -> None:
        """See ``Harness``."""


class LocalValkey(LocalContainer):
    """A server as a broker or a back end."""

    def __init__(self, server: ValkeyServer) -> None:
        super().__init__(f"valkey-{server.port}")
        self.server = server

    @property
    def status(self) -> str:
        return "running" if self.server.process.poll() is None else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        url = self.server.url
        return {"url": url, "host_url": url, "hostname": "127.0.0.1", "port": self.server.port, "vhost": "0"}

    def ready(self) -> bool:
        with self.server.client() as client:
            return bool(client.ping())

    def logs(self) -> str:
        return (self.server.folder / "log").read_text(errors="replace")

    def kill(self, signal: str | int = "SIGKILL") -> None:
        self.server.kill()

    def restart(self, timeout: int = 10) -> None:
        self.server.stop()
        self.server.start()


class LocalWorker(LocalContainer):
    """A worker process."""

    def __init__(self, process: Worker) -> None:
        super().__init__(process.name)
        self.process = process

    @property
    def status(self) -> str:
        return "running" if self.process.running else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {}

    def ready(self) -> bool:
        self.process.wait_ready()
        return True

    def logs(self) -> str:
        return self.process.log

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send it a signal; one that no process survives is waited for."""
        number = getattr(signals, signal) if isinstance(signal, str) else signal
        self.process.send(number)
        if number == signals.SIGKILL:
            self.process.wait()

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout)

    @classmethod
    def version(cls) -> str:
        return celery.__version__


class DockerWorker(CeleryTestContainer):
    """A container of this project's image."""

    ready_prompt = " ready."

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {}

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end and return the exit code."""
        return int(self._container.wait(timeout=timeout)["StatusCode"])

    def teardown(self) -> None:
        self._container.remove(force=True)

    @classmethod
    def version(cls) -> str:
        return celery.__version__


class WorkerNode(CeleryTestWorker):
    """A worker; its hostname is its node name."""

    def hostname(self) -> str:
        return str(self.container.name)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end and return the exit code."""
        return int(self.container.wait(timeout))


class Setup(CeleryTestSetup):
    """A broker, workers on it, and an app as ours that nobody shares."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> Any:
        app = own_app(celery_setup_app_name)
        assert app.conf.broker_url == celery_setup_config["broker_url"], "the environment names another broker"
        return app

    def teardown(self) -> None:
        close_app(self.app)


def broker_node(server: ValkeyServer) -> CeleryTestBroker:
    """Return a server as pytest-celery's broker."""
    return CeleryTestBroker(LocalValkey(server))


def backend_node(server: ValkeyServer) -> CeleryTestBackend:
    """Return a server as pytest-celery's result back end."""
    return CeleryTestBackend(LocalValkey(server))


StartNodes = Callable[[str, int, Sequence[str], Mapping[str, str], Any], list[WorkerNode]]


def local_workers(harness: Harness) -> StartNodes:
    """Return what starts worker processes."""

    def start(app: str, n: int, args: Sequence[str], env: Mapping[str, str], client: Any) -> list[WorkerNode]:
        processes = harness.start_workers(n, app=app, args=args, wait=False, **dict[str, Any](env))
        return [WorkerNode(LocalWorker(each), client) for each in processes]

    return start


def docker_workers(docker_client: Any, broker_url: str) -> StartNodes:
    """Return what starts containers of this project's image."""
    image, _ = docker_client.images.build(path=str(ROOT), tag="penstock:tests")

    def start(app: str, n: int, args: Sequence[str], env: Mapping[str, str], client: Any) -> list[WorkerNode]:
        argv = ["celery", "-A", app, "worker", "-l", "INFO", "--without-mingle", "--without-gossip", *args]
        options = {"environment": {"PENSTOCK_BROKER_URL": broker_url, **env}, "network_mode": "host", "detach": True}
        made = [docker_client.containers.run(image.id, argv[1:], entrypoint=argv[0], **options) for _ in range(n)]
        return [WorkerNode(DockerWorker(each), client) for each in made]

    return start


def wanted(request: pytest.FixtureRequest) -> tuple[str, int, tuple[str, ...], dict[str, str]]:
    """Return what the test's ``workers`` mark asks for: the app, how many, Celery's arguments, the environment."""
    mark = request.node.get_closest_marker("workers")
    count, *args = mark.args if mark and mark.args else (1,)
    env = dict(mark.kwargs) if mark else {}
    return env.pop("app", DEFAULT_APP), int(count), tuple(args), env
