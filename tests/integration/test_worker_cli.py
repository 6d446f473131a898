"""``penstock worker``, ``celery -A penstock.workers.app worker`` and ``penstock flower``, as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import socket_url
from penstock.workers.embedded.home import BrokerHome
from penstock.workers.processes.launcher import ProcessGroup, Role, WorkersFailed, roles, workers
from support.app import own_app
from support.processes import Child, alive
from support.valkey import ValkeyServer, free_port
from support.waiting import wait_until
from support.worker import Worker

BODY: dict[str, Any] = {"service": "openai", "service_settings": {"api_key": "sk-hidden-0123456789", "model_id": "m"}}
CHILD = "penstock.workers.processes.child"
SENTENCE = "A penstock is the gated pipe that feeds a turbine. "

Run = Callable[..., Child]


@pytest.fixture
def penstock(folder: Path) -> Iterator[Run]:
    """Start ``penstock ...``: ``penstock("worker", "--processes", "1")``."""
    started: list[Child] = []

    def start(*arguments: str, **env: str) -> Child:
        argv = [sys.executable, "-m", "penstock.cli.main", *arguments]
        started.append(Child(argv, folder / f"penstock-{len(started)}.log", env, cwd=folder))
        return started[-1]

    yield start
    processes = [pid for each in started for pid in children(each.pid)]
    for each in started:
        each.kill_all()
    wait_until(lambda: not any(alive(pid) for pid in processes), "no worker is left")
    if (folder / "home" / "broker").is_dir():
        wait_until(lambda: not BrokerHome(folder / "home").held("supervisor"), "no supervisor is left")


def children(pid: int) -> list[int]:
    try:
        return [each.pid for each in psutil.Process(pid).children() if CHILD in each.cmdline()]
    except psutil.NoSuchProcess:
        return []


def put(url: str, inference_id: str, body: Mapping[str, Any] = BODY) -> None:
    with connect(url) as client:
        Registry(client, load_settings()).put("text_embedding", inference_id, body)


def chunk(text: str, inference_id: str) -> list[dict[str, Any]]:
    """Have a text chunked by a worker, from another process, as a web application would."""
    code = (
        "import sys, json; from penstock.tasks import chunk; "
        "print(json.dumps(chunk.delay(*sys.argv[1:]).get(timeout=30)))"
    )
    done = subprocess.run([sys.executable, "-c", code, text, inference_id], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_workers_on_the_embedded_broker_serve_new_endpoints_survive_crashes_and_end_with_ctrl_c(
    penstock: Run, home: Path
) -> None:
    command = penstock("worker", "--processes", "1", "--chunkers", "1")
    command.wait_for("2 processes take tasks")
    put(socket_url(load_settings()), "docs")
    command.wait_for("Started consuming from penstock.docs.interactive", timeout=20)
    command.wait_for("Started consuming from penstock.docs.bulk", timeout=20)
    assert [each["text"] for each in chunk(SENTENCE * 2, "docs")] == [SENTENCE * 2]
    assert re.search(r"chunker +\| .*penstock.chunk\[.*succeeded", command.log)
    assert SENTENCE[:10] not in command.log
    first = children(command.pid)[0]
    os.kill(first, signal.SIGKILL)
    command.wait_for(" ready.", count=3)
    processes = children(command.pid)
    assert len(processes) == 2
    with connect(socket_url(load_settings())) as client:
        Registry(client, load_settings()).delete("docs")
    command.wait_for("Canceling queue penstock.docs.interactive", timeout=20)
    command.send(signal.SIGINT)
    assert command.wait() == 130
    assert "Traceback" not in command.log
    assert not any(alive(pid) for pid in processes)
    wait_until(lambda: BrokerHome(home).state() == "down", "the broker ended with its last user")


def test_workers_end_with_a_command_that_is_killed(penstock: Run, home: Path) -> None:
    command = penstock("worker", "--processes", "1", "--chunkers", "0")
    command.wait_for("1 processes take tasks")
    processes = children(command.pid)
    assert processes
    command.kill()
    wait_until(lambda: not any(alive(pid) for pid in processes), "the workers ended")
    wait_until(lambda: BrokerHome(home).state() == "down", "the broker ended with its last user")


def test_what_is_not_done_in_time_is_handed_back(penstock: Run, home: Path, broker_url: str) -> None:
    # A server that never answers: its requests stay in flight.
    silent = socket.create_server(("127.0.0.1", 0))
    body = {
        **BODY,
        "service_settings": {**BODY["service_settings"], "url": f"http://127.0.0.1:{silent.getsockname()[1]}"},
    }
    put(broker_url, "docs", body)
    command = penstock("worker", "--processes", "1", "--lanes", "docs", "--grace", "0.5")
    send = "from penstock.tasks import embed; embed.delay(['a'], 'docs')"
    subprocess.run([sys.executable, "-c", send], check=True, timeout=60)
    with silent, connect(broker_url) as client:
        command.wait_for("penstock.embed[")
        connection, _ = silent.accept()
        command.send(signal.SIGTERM)
        assert command.wait() == 0
        assert "handing back" in command.log
        assert client.llen("penstock:penstock.docs.interactive") == 1
        assert client.zcard("penstock:unacked_index") == 0
        connection.close()


def test_chosen_lanes_on_a_configured_broker_and_a_clean_end_by_sigterm(
    penstock: Run, home: Path, broker_url: str
) -> None:
    refused = penstock("worker", "--lanes", "doxs")
    put(broker_url, "docs")
    put(broker_url, "others")
    assert refused.wait() == 2
    assert "Inference endpoint not found [doxs]" in refused.log
    command = penstock("worker", "--processes", "1", "--lanes", "docs")
    command.wait_for("1 processes take tasks")
    served = own_app("inspector").control.inspect(timeout=5).active_queues()
    (queues,) = [{queue["name"] for queue in each} for each in served.values()]
    assert queues >= {"penstock.docs.interactive", "penstock.docs.bulk"}
    assert not any("others" in queue for queue in queues)
    command.send(signal.SIGTERM)
    assert command.wait() == 0
    assert not (home / "broker").exists()


def test_a_broker_that_is_down_is_one_clear_line(penstock: Run, home: Path) -> None:
    command = penstock("worker", PENSTOCK_BROKER_URL=f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert command.wait() == 2
    assert "cannot be reached" in command.log
    assert "Traceback" not in command.log
    assert "hunter2" not in command.log


def test_processes_that_crash_before_they_are_ready_are_given_up(
    home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.workers.processes.launcher.FIRST_BACKOFF_S", 0.05)
    lines: list[bytes] = []
    group = ProcessGroup([Role("bad", ("--no-such-flag",))], lambda _, output: lines.extend(output))
    group.start()
    try:
        with pytest.raises(WorkersFailed, match="bad does not start"):
            group.await_ready()
        assert any(b"no-such-flag" in line for line in lines)
    finally:
        group.stop(cold=True)
    assert not group.running


def test_a_commands_workers_end_with_its_block_and_log_into_the_home(home: Path, broker_url: str) -> None:
    with workers(2, load_settings(), concurrency=3) as group:
        assert group.ready
        pids = [each.process.pid for each in group.processes if each.process]
        assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    logs = sorted((home / "logs").glob("worker-*.log"))
    assert len(logs) == 2
    assert all(" ready." in path.read_text() for path in logs)


def test_a_commands_workers_are_planned_by_their_arguments(home: Path) -> None:
    settings = load_settings()
    lane, chunker = roles(1, settings, chunkers=3)
    assert lane.arguments[-4:-2] == ("-X", "penstock.chunk")
    assert chunker.arguments[-8:-2] == ("-P", "prefork", "-c", "3", "-Q", "penstock.chunk")
    (only,) = roles(1, settings, concurrency=7, lanes=["a", "b"])
    joined = " ".join(only.arguments)
    assert "-c 7 -Q penstock.a.interactive,penstock.a.bulk,penstock.b.interactive,penstock.b.bulk" in joined
    assert roles(0, settings) == []


def test_celerys_own_command_runs_everything_by_itself_and_heeds_its_flags(
    worker: Callable[..., list[Worker]], broker_url: str, home: Path
) -> None:
    put(broker_url, "docs")
    (celery,) = worker(args=("-P", "prefork", "-c", "1"))
    celery.wait_for("Started consuming from penstock.docs.bulk", timeout=20)
    assert "(prefork)" in celery.log
    assert len(chunk(SENTENCE * 400, "docs")) > 1
    assert "ForkPoolWorker-1] Task penstock.chunk" in celery.log
    command = [sys.executable, "-m", "celery", "-A", "penstock.workers.app", "inspect", "-t", "3", "ping"]
    assert "pong" in subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    celery.send(signal.SIGTERM)
    assert celery.wait() == 0


def test_flower_listens_on_loopback_and_shows_how_much_and_not_what(
    penstock: Run, worker: Callable[..., list[Worker]], broker_url: str, home: Path, valkey: ValkeyServer
) -> None:
    put(broker_url, "docs")
    port = free_port()
    flower = penstock("flower", "--port", str(port), FLOWER_UNAUTHENTICATED_API="1")
    worker(args=("-c", "5"))
    flower.wait_for("Connected to redis")
    assert chunk(SENTENCE * 400, "docs")

    def tasks() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=20) as answer:
            found = list(json.load(answer).values())
        return found if found and found[0]["state"] == "SUCCESS" else None

    (task,) = wait_until(tasks, "Flower has seen the task")
    assert (task["name"], task["args"], task["kwargs"]) == ("penstock.chunk", "(docs, 1 text)", "{}")
    assert SENTENCE[:10] not in json.dumps(task)
    listening = [each.laddr for each in psutil.Process(flower.pid).net_connections() if each.status == "LISTEN"]
    assert listening == [("127.0.0.1", port)]
    flower.send(signal.SIGINT)
    assert flower.wait() in (0, 130)
