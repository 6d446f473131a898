"""Kills, interrupts, full disks, parked lanes, lost messages: what a run says, and how the next one goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.names import BULK, queue_key, queue_name
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from support.backfills import ENDPOINT, LANE_QUEUES, Rig, numbered, whole
from support.processes import Child
from support.stand_in import StandIn
from support.valkey import ValkeyServer
from support.waiting import wait_until
from support.worker import Worker

QUEUE = queue_key("penstock:", queue_name(ENDPOINT, BULK))
SLOW = {"latency_ms": 150, "dimensions": 32}
FEW_AT_ONCE = (*LANE_QUEUES, "-c", "4")


@pytest.fixture
def rig(folder: Path, home: Path, broker_url: str, stand_in: Callable[..., StandIn]) -> Iterator[Rig]:
    made = Rig(folder, stand_in(**SLOW))
    made.put(broker_url, max_inputs_per_request=8)
    yield made
    made.stop()


def served(rig: Rig) -> int:
    assert rig.stand_in is not None
    return int(rig.stand_in.stats()["served"])


def until_served(rig: Rig, count: int) -> None:
    wait_until(lambda: served(rig) >= count, f"{count} requests served", 30)


def billed_again(rig: Rig) -> int:
    assert rig.stand_in is not None
    return int(rig.stand_in.stats()["billed_again"])


def test_a_run_killed_again_and_again_goes_on_and_pays_nothing_twice(
    rig: Rig, worker: Callable[..., list[Worker]]
) -> None:
    worker(args=FEW_AT_ONCE)
    rows = numbered(800)
    corpus = rig.corpus(rows)
    for count in (1, 25, 60):
        child = rig.start(corpus, "--no-chunk")
        until_served(rig, count)
        child.kill()
    rig.run(corpus, "--no-chunk")
    rig.check(whole(rows))
    assert billed_again(rig) == 0
    assert rig.report()["possibly_billed_twice"] == 0
    assert rig.report()["embedded"] == 800


def test_control_c_stops_in_order_and_says_how_to_go_on(rig: Rig, worker: Callable[..., list[Worker]]) -> None:
    worker(args=FEW_AT_ONCE)
    rows = numbered(400)
    corpus = rig.corpus([b"{bad", *rows])
    child = rig.start(corpus, "--no-chunk")
    until_served(rig, 8)
    child.send(signal.SIGINT)
    assert child.wait(20) == 130
    assert "Interrupted; nothing is lost. Run the same command again to go on." in child.log
    assert "Traceback" not in child.log
    assert [letter["code"] for letter in rig.failed()] == ["invalid_json"]
    assert not (rig.out / "report.json").exists()
    rig.run(corpus, "--no-chunk", expect=1)
    rig.check(whole(rows))
    assert billed_again(rig) == 0


def test_a_killed_workers_batches_are_done_by_another(rig: Rig, worker: Callable[..., list[Worker]]) -> None:
    environment = {"PENSTOCK_HEARTBEAT_S": "0.5", "PENSTOCK_VISIBILITY_TIMEOUT_S": "2"}
    first, _ = worker(2, args=FEW_AT_ONCE, **environment)
    rows = numbered(400)
    child = rig.start(rig.corpus(rows), "--no-chunk", env=environment)
    until_served(rig, 10)
    first.kill()
    assert child.wait(60) == 0, child.log
    rig.check(whole(rows))
    assert billed_again(rig) <= rig.report()["possibly_billed_twice"] <= 4 * 8


def test_a_broker_that_is_killed_and_comes_back_costs_no_row(
    folder: Path,
    home: Path,
    mortal: ValkeyServer,
    stand_in: Callable[..., StandIn],
    worker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On the socket: clients that try a closed TCP port again and again may take it themselves.
    monkeypatch.setenv("PENSTOCK_BROKER_URL", mortal.socket_url)
    rig = Rig(folder, stand_in(**SLOW))
    try:
        rig.put(mortal.socket_url, max_inputs_per_request=8)
        worker(args=FEW_AT_ONCE, PENSTOCK_HEARTBEAT_S="0.5", PENSTOCK_VISIBILITY_TIMEOUT_S="2")
        rows = numbered(400)
        child = rig.start(rig.corpus(rows), "--no-chunk")
        until_served(rig, 10)
        mortal.kill()
        child.wait_for("The broker cannot be reached", 20)
        mortal.start()
        assert child.wait(90) == 0, child.log
        rig.check(whole(rows))
    finally:
        rig.stop()


def test_messages_and_results_that_the_broker_lost_are_sent_again(
    rig: Rig, valkey: ValkeyServer, worker: Callable[..., list[Worker]]
) -> None:
    rows = numbered(160)
    child = rig.start(rig.corpus(rows), "--no-chunk")
    with valkey.client() as client:
        wait_until(lambda: client.llen(QUEUE) == 20, "all messages are queued", 20)
        kept = client.lrange(QUEUE, 0, 4)
        child.kill()
        client.delete(QUEUE)
        client.rpush(QUEUE, *kept)
    worker(args=FEW_AT_ONCE)
    rig.run(rig.folder / "corpus.jsonl", "--no-chunk")
    rig.check(whole(rows))
    assert billed_again(rig) == 0
    # 15 messages were sent, had gone, and were sent again: whether they had been billed cannot be known.
    assert rig.report()["possibly_billed_twice"] == 15 * 8


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_space(
    rig: Rig, worker: Callable[..., list[Worker]]
) -> None:
    worker(args=LANE_QUEUES)
    rows = numbered(400)
    corpus = rig.corpus(rows)
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); "
    code = limited + "from penstock.cli.main import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", code, "backfill", str(corpus), "-e", ENDPOINT, "-o", str(rig.out), "--no-chunk"]
    child = Child(argv, rig.folder / "full.log", cwd=rig.folder)
    rig.started.append(child)
    assert child.wait(60) == 2, child.log
    assert "error: " in child.log
    assert "run the same command again; it goes on where it was" in child.log
    assert "Traceback" not in child.log
    assert not list(rig.out.glob("part-*"))
    rig.run(corpus, "--no-chunk")
    rig.check(whole(rows))
    assert billed_again(rig) == 0


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs to mount a small tmpfs")
def test_a_full_file_system_is_one_clear_error(rig: Rig, worker: Callable[..., list[Worker]]) -> None:
    worker(args=LANE_QUEUES)
    rows = numbered(2000)
    corpus = rig.corpus(rows)
    rig.out.mkdir()
    if os.system(f"mount -t tmpfs -o size=200k none {rig.out}") != 0:
        pytest.skip("this system does not let us mount")
    try:
        child = rig.run(corpus, "--no-chunk", expect=2)
        assert "error: " in child.log
        assert os.system(f"mount -o remount,size=20m {rig.out}") == 0
        rig.run(corpus, "--no-chunk")
        rig.check(whole(rows))
    finally:
        os.system(f"umount {rig.out}")


def test_two_runs_on_one_folder_are_refused(rig: Rig) -> None:
    corpus = rig.corpus(numbered(20))
    first = rig.start(corpus, "--no-chunk")
    wait_until(lambda: (rig.out / ".penstock" / "ledger.sqlite3").exists(), "the first run has begun", 20)
    second = rig.run(corpus, "--no-chunk", expect=2)
    assert f"another run (process {first.pid}) is writing to" in second.log


def begin_and_kill(rig: Rig, valkey: ValkeyServer, source: Path, *arguments: str) -> None:
    """Have a run that has sent its messages, to nobody, and is gone."""
    child = rig.start(source, *arguments)
    with valkey.client() as client:
        wait_until(lambda: client.llen(QUEUE), "messages are queued", 20)
    child.kill()


def test_a_folder_of_another_job_is_refused_before_anything_is_spent(rig: Rig, valkey: ValkeyServer) -> None:
    begin_and_kill(rig, valkey, rig.corpus(numbered(20)), "--no-chunk", "--job", "first")
    other = rig.corpus(numbered(21), "other.jsonl")
    log = rig.run(other, "--job", "second", expect=2).log
    for part in ("belongs to another backfill", "--job was 'first', now 'second'", "other.jsonl with other content",
                 "--no-chunk was given, now not given", "give another --out folder"):  # fmt: skip
        assert part in log.replace("\n", " ")
    assert served(rig) == 0


def test_a_parked_lane_pauses_the_job_which_goes_on_when_it_is_resumed(
    rig: Rig, worker: Callable[..., list[Worker]]
) -> None:
    assert rig.stand_in is not None
    worker(args=FEW_AT_ONCE)
    rows = numbered(400)
    child = rig.start(rig.corpus(rows), "--no-chunk")
    until_served(rig, 8)
    rig.stand_in.configure(refuse="insufficient_quota")
    child.wait_for(f"penstock lane resume {ENDPOINT}", 30)
    assert "Paused: the lane of docs is parked" in child.log
    refused = rig.stand_in.stats()["requests"]
    time.sleep(2.0)  # a parked lane is left alone, but for a probe now and then
    assert rig.stand_in.stats()["requests"] - refused <= 1
    rig.stand_in.configure(refuse="")
    resumed = Child([sys.executable, "-m", "penstock.cli.main", "lane", "resume", ENDPOINT], rig.folder / "resume.log")
    assert resumed.wait(20) == 0, resumed.log
    assert child.wait(60) == 0, child.log
    rig.check(whole(rows))
    assert rig.failed() == []
    assert billed_again(rig) == 0


def start_impatient(rig: Rig, corpus: Path) -> Child:
    """Start a run that gives up after a second of workers that cannot do the job."""
    impatient = "import sys; from penstock.tasks.backfill import run; run.WORKER_PATIENCE_S = 1.0; "
    code = impatient + "from penstock.cli.main import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", code, "backfill", str(corpus), "-e", ENDPOINT, "-o", str(rig.out), "--no-chunk"]
    rig.started.append(Child(argv, rig.folder / "impatient.log", cwd=rig.folder))
    return rig.started[-1]


def test_workers_with_a_defect_stop_the_run_without_a_dead_letter(
    rig: Rig, worker: Callable[..., list[Worker]]
) -> None:
    (rig.folder / "broken.py").write_text(
        "from penstock.tasks import embed\n"
        "from penstock.workers.app import app\n"
        "def run(*args, **kwargs):\n"
        "    raise ValueError('a defect of this worker')\n"
        "embed.run = run\n"
    )
    (broken,) = worker(app="broken", args=FEW_AT_ONCE)
    rows = numbered(80)
    corpus = rig.corpus(rows)
    child = start_impatient(rig, corpus)
    assert child.wait(60) == 2, child.log
    assert "a worker cannot do the job: ValueError: a defect of this worker" in child.log
    assert rig.failed() == []
    broken.kill_all()
    worker(args=FEW_AT_ONCE)
    rig.run(corpus, "--no-chunk")
    rig.check(whole(rows))


def test_an_endpoint_that_is_deleted_under_a_run_stops_it_without_a_dead_letter(
    rig: Rig, broker_url: str, worker: Callable[..., list[Worker]]
) -> None:
    worker(args=FEW_AT_ONCE)
    rows = numbered(400)
    corpus = rig.corpus(rows)
    child = start_impatient(rig, corpus)
    until_served(rig, 8)
    with connect(broker_url) as client:
        Registry(client, load_settings()).delete(ENDPOINT)
    assert child.wait(40) == 2, child.log
    assert "a worker cannot do the job" in child.log
    assert rig.failed() == []
    rig.put(broker_url, max_inputs_per_request=8)
    rig.run(corpus, "--no-chunk")
    rig.check(whole(rows))
    assert rig.failed() == []


def test_without_any_worker_the_user_is_told_how_to_start_one(rig: Rig) -> None:
    child = rig.start(rig.corpus(numbered(20)), "--no-chunk")
    child.wait_for("No worker answers. Start one on the same broker: penstock worker", 30)
    assert child.running


def test_an_unreachable_host_ends_as_dead_letters(rig: Rig, broker_url: str, worker: Any) -> None:
    rig.put(broker_url, url="http://127.0.0.1:9", max_inputs_per_request=8)
    worker(args=LANE_QUEUES, PENSTOCK_RETRY_ATTEMPTS="2", PENSTOCK_RETRY_BUDGET_S="3")
    rig.run(rig.corpus(numbered(16)), "--no-chunk", expect=1)
    letters = rig.failed()
    assert len(letters) == 16
    assert all(letter["code"] and letter["message"] for letter in letters)
    assert rig.report()["failed"] == 16


REFUSED = [
    (["--endpoint", "nowhere"], "nowhere"),
    (["--text-field", "body"], "has no field 'body'. Fields found: 'id', 'text'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_wrong_usage_is_one_line_and_exit_code_2(rig: Rig, arguments: list[str], message: str) -> None:
    log = rig.run(rig.corpus(numbered(3)), *arguments, expect=2).log
    assert message in log
    assert not rig.out.exists()


def test_an_endpoint_of_another_kind_is_refused(rig: Rig, broker_url: str) -> None:
    with_completion = Rig(rig.folder, None)
    with connect(broker_url) as client:
        registry = Registry(client, load_settings())
        registry.delete(ENDPOINT)
        settings = {"url": "http://127.0.0.1:9/v1/chat/completions", "api_key": "k", "model_id": "m"}
        registry.put("completion", ENDPOINT, {"service": "openai", "service_settings": settings})
    log = with_completion.run(rig.corpus(numbered(3)), expect=2).log
    assert "is a completion endpoint: a backfill needs one of type text_embedding" in log


def test_an_empty_corpus_is_an_error_and_leaves_no_folder(rig: Rig, worker: Any) -> None:
    for name, data in (("empty.jsonl", b""), ("blank.jsonl", b"\n \n"), ("header.csv", b"id,text\n")):
        (rig.folder / name).write_bytes(data)
        log = rig.run(rig.folder / name, "--no-chunk", expect=2).log
        assert "is empty: it has not one row" in log
        assert not rig.out.exists()


def test_a_broker_that_is_down_is_one_line_and_exit_code_2(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", "redis://user:hidden-password@127.0.0.1:9/0")
    rig = Rig(folder, None)
    log = rig.run(rig.corpus(numbered(3)), "--no-chunk", expect=2).log
    assert "cannot be reached" in log
    assert "hidden-password" not in log


def test_a_corpus_that_changed_between_two_runs_is_refused(rig: Rig, valkey: ValkeyServer) -> None:
    corpus = rig.corpus(numbered(20))
    begin_and_kill(rig, valkey, corpus, "--no-chunk")
    rig.corpus(numbered(21))
    log = rig.run(corpus, "--no-chunk", expect=2).log.replace("\n", " ")
    assert "corpus.jsonl has changed since" in log
