"""``penstock embed``, ``complete`` and ``image`` as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.stand_in.vectors import vector
from support.processes import Child
from support.task_bench import Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    usual = {"answer_tokens": 6, "token_delay_ms": 0, "fault": {}, "poison": {}}
    with open_stage(valkey_server, usual=usual, dimensions=8, image_states=["running", "succeeded"]) as found:
        found.start_worker()
        yield found


def penstock(*args: str, given: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", *args], input=given, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == code, f"{run.stdout}\n{run.stderr}"
    assert "Traceback" not in run.stderr
    return run


def test_embed_prints_dimensions_and_vectors_and_reads_lines(bench: TaskBench, stage: Stage) -> None:
    bench.openai("text_embedding", "docs", stage.stand_in.url)
    shown = penstock("embed", "docs", "a gated pipe")
    assert "a gated pipe  [" in shown.stdout
    assert "8 dimensions" in shown.stderr
    found = json.loads(penstock("embed", "docs", "-", "--json", given="one\n\ntwo\n").stdout)
    assert found["dimensions"] == 8
    assert found["vectors"] == [pytest.approx(vector(text, 8).tolist()) for text in ("one", "two")]
    stage.stand_in.configure(poison={"BAD": "content-filter"})
    failed = json.loads(penstock("embed", "docs", "-", "--json", given="one\nBAD\n", code=1).stdout)
    assert failed["vectors"][1] is None
    assert [(each["index"], each["code"]) for each in failed["failures"]] == [(1, "content_filter")]


def test_complete_prints_the_answer_whole_or_as_it_comes(bench: TaskBench, stage: Stage) -> None:
    bench.openai("completion", "plain", stage.stand_in.url, model="plain")
    bench.openai("chat_completion", "chat", stage.stand_in.url, model="chat")
    whole = penstock("complete", "plain", "What is a penstock?").stdout
    assert len(whole.split()) == 6
    assert penstock("complete", "chat", "-", given="What is a penstock?").stdout == whole
    asked = ("--max-tokens", "2", "--set", "n=2", "--set", "user=u", "--system", "Be brief.", "--json")
    found = json.loads(penstock("complete", "chat", "What is a penstock?", *asked).stdout)
    assert found["finish_reason"] == "length"
    assert [len(choice["text"].split()) for choice in found["choices"]] == [2, 2]


def test_complete_prints_while_it_comes_and_ctrl_c_calls_it_off(bench: TaskBench, stage: Stage, folder: Path) -> None:
    bench.openai("chat_completion", "chat", stage.stand_in.url, model="chat")
    stage.stand_in.configure(token_delay_ms=300, answer_tokens=60)
    child = Child([sys.executable, "-m", "penstock.cli.main", "complete", "chat", "slowly"], folder / "log")
    try:
        wait_until(lambda: 2 <= len(child.log.split()) < 60, "the first words", 20)
        child.send(signal.SIGINT)
        assert child.wait(20) == 130
    finally:
        child.kill_all()
    with stage.valkey.client() as client:
        wait_until(
            lambda: b"penstock.chat.interactive" not in client.hvals("penstock:in-flight"), "the task is gone", 8
        )
        assert not client.exists("penstock:penstock.chat.interactive")


def test_a_cut_stream_prints_what_had_come_and_fails(bench: TaskBench, stage: Stage) -> None:
    bench.openai("chat_completion", "chat", stage.stand_in.url, model="chat")
    stage.stand_in.configure(fault={"cut-stream": 1})
    run = penstock("complete", "chat", "What is a penstock?", code=1)
    assert 0 < len(run.stdout.split()) < 6
    assert "stream_cut" in run.stderr


def test_image_writes_files_here_and_tells_its_progress(bench: TaskBench, stage: Stage, folder: Path) -> None:
    bench.azure_images("pictures", stage.stand_in.url)
    run = penstock("image", "pictures", "An avocado chair", "-n", "2", "--out", str(folder / "images"))
    files = [Path(line) for line in run.stdout.split()]
    assert [file.read_bytes()[:4] for file in files] == [b"\x89PNG"] * 2
    assert "submitted: operation" in run.stderr
    assert "running: operation" in run.stderr
    bench.openai("image_generation", "instant", stage.stand_in.url, model="dall-e-2")
    found = json.loads(penstock("image", "instant", "-", "--json", given="A chair").stdout)
    assert len(found["urls"]) == 1
    assert found["files"] == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("embed", "no-such", "x"), 2, "penstock endpoint list"),
        (("embed", "plain", "x"), 2, "text_embedding"),
        (("complete", "plain", ""), 2, "no prompt"),
        (("complete", "plain", "x", "--set", "nonsense"), 2, "KEY=VALUE"),
        (("complete", "plain", "FILTERED"), 1, "content_filter"),
        (("image", "plain", "x"), 2, "image_generation"),
        (("complete", "parked", "x"), 1, "penstock lane resume parked"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(
    bench: TaskBench, stage: Stage, args: tuple[str, ...], code: int, words: str
) -> None:
    bench.openai("completion", "plain", stage.stand_in.url, model="plain")
    stage.stand_in.configure(poison={"FILTERED": "content-filter"})
    if "parked" in args:
        stage.stand_in.configure(refuse="insufficient_quota")
        bench.openai("completion", "parked", stage.stand_in.url, model="parked")
    run = penstock(*args, code=code)
    stage.stand_in.configure(refuse="")
    assert words in run.stderr
    assert run.stderr.startswith("error: ")
    assert run.stdout == ""


def test_without_a_broker_there_is_one_and_a_worker_until_the_end(
    stage: Stage, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_BROKER_URL", raising=False)
    settings: dict[str, Any] = {"api_key": "a-key-of-no-worth", "model_id": "m", "url": f"{stage.stand_in.url}/v1"}
    body = folder / "body.json"
    body.write_text(json.dumps({"service": "openai", "service_settings": settings}))
    penstock("endpoint", "put", "chat_completion", "chat", "--file", str(body), "--no-verify")
    assert len(penstock("complete", "chat", "What is a penstock?").stdout.split()) == 6
    wait_until(lambda: not (home / "broker" / "valkey.sock").exists(), "the broker is gone")
