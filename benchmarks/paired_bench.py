"""What ``benchmarks/paired.py`` runs on: another commit's tree, and for each side a broker, two workers, a driver."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.stand_in import StandIn
from support.valkey import ValkeyServer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
READY_S, ANSWER_S, END_S = 120.0, 240.0, 15.0


def checkout(commit: str, folder: Path) -> str:
    """Write a commit's files into a folder. Returns its short hash.

    Raises:
        SystemExit: there is no such commit, or its packages are not found under ``.src``.
    """
    found = _git("rev-parse", "--short", f"{commit}^{{commit}}").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", found))) as archive:
        archive.extractall(folder, filter="data")
    if not (folder / ".src" / "penstock" / "workers").is_dir():
        raise SystemExit(f"{commit} has no .src/penstock/workers: choose a commit that has")
    return found


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
    if done.returncode:
        raise SystemExit(f"git {arguments[0]} failed: {done.stderr.decode().strip()}")
    return done.stdout


class Peer:
    """A process of a side: JSON lines to and from it, its log in a file; it ends with its standard input."""

    def __init__(self, kind: str, tree: Path, log: Path, env: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        argv = [sys.executable, str(HERE / "paired_side.py"), kind, str(tree), *arguments]
        self._log = log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=env, cwd=log.parent, text=True,
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends them in order
            )  # fmt: skip

    def read(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Return the next line.

        Raises:
            SystemExit: it ended, or said nothing for so long.
        """
        assert self.process.stdout is not None
        heard, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        line = self.process.stdout.readline() if heard else ""
        if not line:
            raise SystemExit(f"no answer from {self._log.name}:\n{self._log.read_text(errors='replace')[-3000:]}")
        return dict(json.loads(line))

    def ask(self, **question: Any) -> dict[str, Any]:
        """Write a line and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        """End it, at once if it does not do so itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@dataclass
class Side:
    """A tree at work."""

    name: str
    driver: Peer
    workers: Sequence[Peer]
    broker: int
    modules: str

    @property
    def worker_pids(self) -> list[int]:
        """The workers' pids: of the one that serves all lanes, and of its help on the lane with a quota."""
        return [each.process.pid for each in self.workers]


@contextlib.contextmanager
def side(name: str, tree: Path, folder: Path, endpoints: Path, helped: str) -> Iterator[Side]:
    """Have a side up.

    Args:
        name: what it is called in reports.
        tree: its code; ``.src`` in it is put before all other paths.
        folder: for its broker and logs.
        endpoints: the file of endpoints.
        helped: the lane that the second worker serves; the first serves all.
    """
    (folder / "home").mkdir(mode=0o700, parents=True)
    with contextlib.ExitStack() as stack:
        broker = ValkeyServer(folder)
        stack.callback(broker.stop)
        env = environment(tree)
        env.update(PENSTOCK_HOME=str(folder / "home"), PENSTOCK_BROKER_URL=broker.socket_url)
        env.update(PENSTOCK_ENDPOINTS_FILE=str(endpoints))
        queues = ",".join(f"penstock.{helped}.{job_class}" for job_class in ("interactive", "bulk"))
        peers = []
        for number, arguments in enumerate(((), ("-Q", queues)), 1):
            log = folder / f"{name}-worker-{number}.log"
            peers.append(Peer("worker", tree, log, env, (*arguments, "-n", f"{number}-{os.getpid()}@{name}")))
            stack.callback(peers[-1].stop)
        driver = Peer("driver", tree, folder / f"{name}-driver.log", env)
        stack.callback(driver.stop)
        files = {peer.read(READY_S)["workers"] for peer in (*peers, driver)}
        assert len(files) == 1, files
        yield Side(name, driver, peers, broker.pid, files.pop())


def environment(tree: Path) -> dict[str, str]:
    """Return this environment without settings of ours, with the tree's packages before all others."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {**env, "PYTHONPATH": str(tree / ".src"), "PENSTOCK_LOG_LEVEL": "WARNING"}


@contextlib.contextmanager
def stand_in(folder: Path, **options: Any) -> Iterator[StandIn]:
    """Have the running interpreter's stand-in."""
    server = StandIn(folder / "stand-in.log", with_parent=True, **options)
    try:
        yield server
    finally:
        server.stop()


def prepare(server: StandIn, **options: Any) -> None:
    """Set options of the stand-in and make it forget what it has counted."""
    server.configure(**options)
    request = urllib.request.Request(f"{server.url}/_stand_in/reset", data=b"{}", method="POST")
    urllib.request.urlopen(request, timeout=10).close()
