"""The embedded broker's folder: where its socket and locks are, and how to tell whether it runs.

Users of the broker and its supervisor speak through this folder alone. It knows no settings and imports the
standard library only, so that the supervisor starts quickly.

Locks are ``flock``: the kernel lets them go when a process ends, however it ends. ``users`` is held shared by every
user; ``supervisor`` by the one supervisor; ``server`` by the server itself (it inherits the open file), so that a
second one is never started on the same data; ``starting`` by the user who is starting a supervisor. A library's locks
would not do: ``filelock`` has no shared ``flock``, lets go of a lock in a forked child (the supervisor takes its own
into the background, the server inherits one), and costs some 30 ms to import.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.config.names import LOGS

# A socket's address holds 104 bytes on macOS and 108 on Linux, the closing zero included.
MAX_SOCKET_PATH = 100
SOCKET = "valkey.sock"
# Other characters would have to be escaped in a URL, and readers of such URLs differ in what they undo.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")
_FIRST_BYTES = 64
# Not $TMPDIR: all processes of a user must come to the same path, and some have another one or a long one.
_SHORT = Path("/tmp")  # noqa: S108 - the folder made in it is checked to be ours and private


class BrokerHome:
    """The folder ``broker`` under a Penstock home. Nothing is made or opened before it is asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "broker"
        self.log = home / LOGS / "broker.log"
        self.failure = self.folder / "failure"
        self._pointer = self.folder / "socket-folder"

    def prepare(self) -> None:
        """Make the folders, private to this user. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    # Locks

    @contextlib.contextmanager
    def lock(self, name: str, *, shared: bool = False, wait_s: float = 0.0) -> Iterator[int | None]:
        """Hold a lock inside the block; yields its file descriptor, or None when it was not to be had in time."""
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor if _flock(descriptor, shared, wait_s) else None
        finally:
            os.close(descriptor)

    def held(self, name: str) -> bool:
        """Whether somebody holds the lock for himself alone."""
        with self.lock(name, shared=True) as mine:
            return mine is None

    # Socket

    @property
    def socket(self) -> Path:
        """Where the socket is or would be: in the folder, or in a short one elsewhere if that path is too long."""
        path = self.folder / SOCKET
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH and _PLAIN_PATH.fullmatch(str(path)):
            return path
        with contextlib.suppress(OSError):
            recorded = Path(self._pointer.read_text(encoding="utf-8").strip())
            if is_private(recorded):
                return recorded / SOCKET
        return self._elsewhere() / SOCKET

    def _elsewhere(self) -> Path:
        mark = hashlib.sha256(os.fsencode(self.folder.resolve())).hexdigest()[:16]
        return _SHORT / f"penstock-{os.getuid()}-{mark}"

    def make_socket_folder(self) -> Path:
        """Make the socket's folder and return the socket's path. For the supervisor alone. Raises OSError."""
        path = self.socket
        if path.parent == self.folder:
            return path
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        if not is_private(path.parent):  # somebody else sits there: take a name that nobody can foresee
            path = Path(tempfile.mkdtemp(prefix="penstock-", dir=_SHORT)) / SOCKET
        self._pointer.write_text(str(path.parent), encoding="utf-8")
        return path

    def remove_socket(self) -> None:
        """Remove the socket, and its folder if that is elsewhere."""
        path = self.socket
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if path.parent != self.folder:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            self._pointer.unlink(missing_ok=True)

    def state(self) -> str:
        """Ask the server: ``up``, ``loading`` (it reads its data), or ``down``."""
        answer = _ask(self.socket, b"PING\r\n")
        if answer.startswith(b"+PONG"):
            return "up"
        return "loading" if answer.startswith(b"-LOADING") else "down"

    def last_words(self, lines: int = 12) -> str:
        """Return the end of the log, for an error message."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def is_private(folder: Path) -> bool:
    """Whether it is a folder of this user (no link) that nobody else may enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _flock(descriptor: int, shared: bool, wait_s: float) -> bool:
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, how)
        except OSError as exc:
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                raise
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _ask(path: Path, command: bytes, timeout_s: float = 2.0) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall(command)
            return client.recv(_FIRST_BYTES)
    except OSError:
        return b""
