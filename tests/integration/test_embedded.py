"""The embedded broker: one a home, shared, back after every kill -9, gone with its last user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from penstock.config.errors import BrokerUnavailable
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.workers.embedded import home as broker_home
from penstock.workers.embedded.broker import broker, embedded_broker, server_program, socket_url
from penstock.workers.embedded.home import BrokerHome
from support.processes import Child, alive
from support.valkey import ValkeyServer, free_port
from support.waiting import wait_until

TESTS = Path(__file__).resolve().parent.parent


class User(Child):
    """A process that uses the broker; ``server`` is the pid of the server that it found."""

    def __init__(self, log: Path) -> None:
        super().__init__([sys.executable, "-m", "support.broker_user"], log, env={"PYTHONPATH": str(TESTS)})

    def found(self) -> dict[str, Any]:
        self.wait_for('"server"')
        return dict(json.loads(next(line for line in self.log.splitlines() if '"server"' in line)))

    @property
    def server(self) -> int:
        return int(self.found()["server"])


@pytest.fixture
def user(folder: Path, home: Path) -> Iterator[Callable[[], User]]:
    started: list[User] = []

    def start() -> User:
        started.append(User(folder / f"user-{len(started)}.log"))
        return started[-1]

    yield start
    for each in started:
        each.kill_all()
    if (home / "broker").is_dir():  # let the supervisor see that nobody is left, before the folder goes
        wait_until(lambda: not BrokerHome(home).held("supervisor"), "the supervisor is gone")


def parent_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


def server_of(home: Path) -> int:
    """Return the pid of the server that answers now, 0 if none does."""
    try:
        with connect(socket_url(load_settings())) as client:
            return int(client.info("server")["process_id"])
    except redis.RedisError:
        return 0


def put(home: Path, key: str, value: str) -> None:
    with connect(socket_url(load_settings())) as client:
        client.set(key, value)


def get(home: Path, key: str) -> str | None:
    with connect(socket_url(load_settings()), decode=True) as client:
        return client.get(key)


def test_it_keeps_its_data_from_one_user_to_the_next(user: Callable[[], User], home: Path) -> None:
    first = user()
    server = first.server
    put(home, "a", "1")
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    wait_until(lambda: not alive(server), "the server ended with its last user")
    assert not BrokerHome(home).socket.exists()
    second = user()
    assert second.server != server
    assert get(home, "a") == "1"


def test_users_that_start_together_share_one_server_and_the_last_one_ends_it(
    user: Callable[[], User], home: Path
) -> None:
    users = [user() for _ in range(4)]
    servers = {each.server for each in users}
    assert len(servers) == 1
    server = servers.pop()
    for each in users[:-1]:
        each.send(signal.SIGTERM)
        each.wait()
    late = user()
    assert late.server == server
    users[-1].send(signal.SIGTERM)
    users[-1].wait()
    assert alive(server)
    late.send(signal.SIGTERM)
    wait_until(lambda: not alive(server), "the server ended with its last user")


def test_it_listens_on_a_private_socket_alone_keeps_an_append_only_file_and_evicts_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded_broker(load_settings()) as url, connect(url, decode=True) as client:
        config = client.config_get("*")
        assert config["port"] == "0"
        assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
        assert config["maxmemory-policy"] == "noeviction"
        assert (home / "broker").stat().st_mode & 0o777 == 0o700
        environment = Path(f"/proc/{client.info('server')['process_id']}/environ")
        assert "PENSTOCK" not in (environment.read_text() if environment.exists() else "")


def test_a_killed_server_comes_back_with_its_data_for_users_that_run_on(user: Callable[[], User], home: Path) -> None:
    server = user().server
    put(home, "a", "1")
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: server_of(home) not in (0, server), "another server answers")
    assert get(home, "a") == "1"


def test_a_killed_supervisor_takes_its_server_along_and_a_user_starts_both_again(
    user: Callable[[], User], home: Path
) -> None:
    server = user().server
    put(home, "a", "1")
    os.kill(parent_of(server), signal.SIGKILL)
    wait_until(lambda: not alive(server), "the server of the killed supervisor ends")
    wait_until(lambda: server_of(home), "another server answers")
    assert get(home, "a") == "1"


def test_a_killed_user_counts_as_gone(user: Callable[[], User], home: Path) -> None:
    first, second = user(), user()
    server = first.server
    assert second.server == server
    supervisor = parent_of(server)
    first.kill()
    assert alive(server)
    second.kill()
    wait_until(lambda: not alive(server) and not alive(supervisor), "server and supervisor ended")


def test_killing_user_and_supervisor_leaves_no_server_and_the_next_user_finds_the_data(
    user: Callable[[], User], home: Path
) -> None:
    first = user()
    server = first.server
    put(home, "a", "1")
    supervisor = parent_of(server)
    first.kill()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not alive(server), "no server is left")
    user().found()
    assert get(home, "a") == "1"


def test_a_server_that_nobody_supervises_any_more_is_ended_before_another_starts(
    user: Callable[[], User], home: Path, folder: Path
) -> None:
    files = BrokerHome(home)
    files.prepare()
    with files.lock("server") as lock:
        assert lock is not None
        stray = subprocess.Popen(
            [server_program(), "--port", "0", "--unixsocket", files.socket, "--dir", folder, "--save", ""],
            stdout=subprocess.DEVNULL,
            pass_fds=(lock,),
        )
        os.pwrite(lock, str(stray.pid).encode(), 0)
    try:
        wait_until(lambda: files.state() == "up", "the stray server answers")
        wait_until(lambda: user().server != stray.pid or stray.poll() is not None, "another one is started")
        wait_until(lambda: stray.poll() is not None, "the stray one is gone")
        assert server_of(home) not in (0, stray.pid)
    finally:
        stray.kill()
        stray.wait()


def test_a_stale_socket_and_stale_numbers_do_not_matter(user: Callable[[], User], home: Path) -> None:
    files = BrokerHome(home)
    files.prepare()
    files.socket.touch()
    (files.folder / "server").write_text(str(os.getpid()))
    (files.folder / "failure").write_text("of last week")
    assert user().server


def test_a_long_home_has_its_socket_in_a_short_private_folder_that_goes_with_it(
    user: Callable[[], User], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = home / ("deep and wide " * 6) / "x"
    monkeypatch.setenv("PENSTOCK_HOME", str(long))
    foretold = socket_url(load_settings())
    first = user()
    url = first.found()["url"]
    assert url == foretold == socket_url(load_settings())
    assert user().server == first.server
    path = BrokerHome(long).socket
    assert len(str(path)) < 100
    assert broker_home.is_private(path.parent)
    for each in (first, user()):
        each.kill()
    assert path.parent.exists()


def test_the_short_folder_is_never_one_that_others_may_enter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = home / ("deep and wide " * 6)
    monkeypatch.setenv("PENSTOCK_HOME", str(long))
    squatted = BrokerHome(long).socket.parent
    squatted.mkdir(mode=0o777)
    squatted.chmod(0o777)
    try:
        with embedded_broker(load_settings()) as url, connect(url) as client:
            assert str(squatted) not in url
            assert socket_url(load_settings()) == url
            assert client.ping()
        wait_until(lambda: not BrokerHome(long).held("supervisor"), "it stopped")
    finally:
        squatted.rmdir()


def test_a_home_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("PENSTOCK_HOME", str(home / "file"))
    with pytest.raises(BrokerUnavailable, match="PENSTOCK_HOME") as caught, embedded_broker(load_settings()):
        pass
    assert str(home / "file") in str(caught.value)


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    (home / "broker").mkdir()
    (home / "broker" / "appendonlydir").touch()
    with pytest.raises(BrokerUnavailable, match="PENSTOCK_BROKER_URL") as caught, embedded_broker(load_settings()):
        pass
    assert "appendonlydir" in str(caught.value)
    wait_until(lambda: not BrokerHome(home).held("supervisor"), "the supervisor gave up")


def test_a_system_without_a_server_is_told_to_name_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(BrokerUnavailable, match=r"riscv64.*PENSTOCK_BROKER_URL"), embedded_broker(load_settings()):
        pass


def test_a_configured_broker_is_used_when_it_answers(valkey: ValkeyServer, broker_url: str, home: Path) -> None:
    with broker(load_settings()) as found:
        assert (found.broker, found.results) == (broker_url, broker_url)
    assert not (home / "broker").exists()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_configured_broker_that_is_down_is_an_error_without_its_password(
    scheme: str, home: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", f"{scheme}://user:hunter2@127.0.0.1:{free_port()}/0")
    monkeypatch.setenv("PENSTOCK_RESULT_BACKEND", valkey.url)
    monkeypatch.setenv("PENSTOCK_CONNECT_TIMEOUT_S", "2")
    with pytest.raises(BrokerUnavailable, match="PENSTOCK_BROKER_URL") as caught, broker(load_settings()):
        pass
    assert "hunter2" not in str(caught.value)


def test_urls_hide_their_passwords_when_shown(
    home: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", f"redis://:@127.0.0.1:{valkey.port}/0?password=")
    with broker(load_settings()) as found:
        assert "***" in repr(found)
