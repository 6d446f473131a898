"""What a test or a module of tests runs: a broker, stand-in endpoints, workers and apps, and an end to all of them.

Every tier starts its processes here, and nowhere else: the fixtures of ``tests/conftest.py`` for one test, ``Stage``
and ``Deployment`` for those of a module, the nodes of pytest-celery (``support.nodes``) for either.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.app import close_app, own_app
from support.stand_in import StandIn
from support.valkey import ValkeyServer
from support.worker import Worker


def short_folder() -> Path:
    """Make a folder: a unix socket's path may have some 100 bytes, and pytest's own folders are too deep."""
    return Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp" if Path("/tmp").is_dir() else None))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Have a fresh folder with a short path."""
    path = short_folder()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Harness:
    """Starts things, and ends them in the other order.

    Args:
        folder: for logs, sockets and data.
        env: of the worker processes, beside the environment's own.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder, self.env = folder, dict(env or {})
        self.workers: list[Worker] = []
        self._ends = contextlib.ExitStack()
        self._numbers = itertools.count()

    def start_server(self, *, persistent: bool = False) -> ValkeyServer:
        """Start a broker of one's own, to be stopped and killed."""
        folder = self.folder / f"valkey-{next(self._numbers)}"
        folder.mkdir()
        server = ValkeyServer(folder, persistent)
        self._ends.callback(server.stop)
        return server

    def start_stand_in(self, **options: Any) -> StandIn:
        """Start a stand-in: ``start_stand_in(rpm=600, fault={"500": 0.03}).url``."""
        made = StandIn(self.folder / f"stand-in-{next(self._numbers)}.log", **options)
        self._ends.callback(made.stop)
        return made

    def start_workers(
        self,
        n: int = 1,
        *,
        app: str = "penstock.workers.app",
        args: Sequence[str] = (),
        wait: bool = True,
        **env: str,
    ) -> list[Worker]:
        """Start workers and wait until they take tasks.

        Args:
            n: how many.
            app: the Celery app, as ``celery -A`` takes it.
            args: Celery's.
            wait: False does not wait.
            **env: variables of their environment.
        """
        new = []
        for _ in range(n):
            new.append(Worker(self.folder, app, args, {**self.env, **env}))
            self._ends.callback(new[-1].kill_all)
        self.workers += new
        if wait:
            for each in new:
                each.wait_ready()
        return new

    def make_app(self, name: str) -> Any:
        """Make an app as ours, with the settings of this moment, that is nobody's current one."""
        app = own_app(name)
        self._ends.callback(close_app, app)
        return app

    def close(self) -> None:
        """End all of it."""
        self._ends.close()


@contextlib.contextmanager
def harness(folder: Path | None = None, env: Mapping[str, str] | None = None) -> Iterator[Harness]:
    """Have a harness, in a folder that is removed with it unless one is given."""
    with contextlib.ExitStack() as stack:
        made = Harness(folder or stack.enter_context(temporary_folder()), env)
        stack.callback(made.close)
        yield made
