"""A completion's stream, read in another process than the worker's while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from penstock.config.errors import CutStream, InputInvalid
from penstock.tasks.completion.streaming import StreamTimedOut, stream
from support.task_bench import SHORT_LEASES, USUAL_CHAT, Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

HELLO = [{"role": "user", "content": "What is a penstock?"}]


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, SHORT_LEASES, USUAL_CHAT) as found:
        found.start_worker()
        yield found


class Quiet(BaseHTTPRequestHandler):
    """A handler of a server of a test's own; it logs nothing."""

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[Quiet]) -> Iterator[str]:
    """Serve on loopback, in threads of this process. Yields the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_deltas_put_together_are_the_answer(bench: TaskBench, chat: str) -> None:
    result = bench.send("complete", HELLO, chat)
    deltas = list(stream(result, timeout=20))
    answer = result.get(timeout=20)
    assert len([delta for delta in deltas if delta.text]) == 12
    assert "".join(delta.text for delta in deltas) == answer.text
    assert not any(delta.restart for delta in deltas)
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert [delta.usage for delta in deltas if delta.usage] == [answer.usage]
    assert bench.send("complete", HELLO, chat, stream=False).get(timeout=20).text == answer.text


def test_an_asynchronous_reader_by_id_reads_the_same(bench: TaskBench, chat: str) -> None:
    result = bench.send("complete", HELLO, chat, n=2)

    async def read() -> list[tuple[int, str]]:
        return [(delta.index, delta.text) async for delta in stream(result.id, timeout=20)]

    found = asyncio.run(read())
    answer = result.get(timeout=20)
    for choice in answer.choices:
        assert "".join(text for index, text in found if index == choice.index) == choice.text


def test_a_late_reader_reads_from_the_start_and_an_expired_stream_from_the_result(
    bench: TaskBench, stage: Stage, chat: str
) -> None:
    result = bench.send("complete", HELLO, chat)
    answer = result.get(timeout=20)
    assert len([delta for delta in stream(result, timeout=20) if delta.text]) == 12
    with stage.valkey.client() as client:
        key = f"penstock:stream:{result.id}"
        assert 0 < client.ttl(key) <= 3600
        client.delete(key)
    late = [delta for delta in stream(result, timeout=20) if delta.text]
    assert [delta.text for delta in late] == [answer.text]


def test_a_task_that_does_not_stream_gives_its_answer_at_once(bench: TaskBench, plain: str) -> None:
    result = bench.send("complete", HELLO, plain)
    assert [delta.text for delta in stream(result, timeout=20) if delta.text] == [result.get(timeout=20).text]


def test_tool_calls_come_raw_and_put_together(bench: TaskBench, chat: str) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    result = bench.send("complete", HELLO, chat, tools=tools)
    parts = [delta.raw["choices"][0]["delta"] for delta in stream(result, timeout=20) if delta.raw.get("choices")]
    assert any(part.get("tool_calls") for part in parts)
    assert result.get(timeout=20).choices[0].tool_calls[0]["function"] == {"name": "look_up", "arguments": "{}"}


@pytest.mark.parametrize("fault", ["cut-stream", "truncated", "error-stream", "malformed"])
def test_a_stream_that_breaks_off_is_an_error_with_what_had_come(
    bench: TaskBench, stage: Stage, chat: str, fault: str
) -> None:
    whole = bench.send("complete", HELLO, chat, stream=False).get(timeout=20).text
    stage.stand_in.configure(fault={fault: 1})
    before = stage.stand_in.stats()["requests"]
    result = bench.send("complete", HELLO, chat)
    seen: list[str] = []
    with pytest.raises(CutStream) as read:
        seen.extend(delta.text for delta in stream(result, timeout=20))
    with pytest.raises(CutStream) as got:
        result.get(timeout=20)
    assert 0 < len(read.value.partial) < len(whole)
    assert whole.startswith(read.value.partial)
    assert read.value.partial == got.value.partial == "".join(seen)
    assert read.value.partial not in repr(got.value)
    assert stage.stand_in.stats()["requests"] == before + 1, "a stream that had begun was tried again"


def test_what_goes_wrong_before_the_first_byte_is_tried_again(bench: TaskBench, stage: Stage, chat: str) -> None:
    stage.stand_in.configure(fault={"reset-after": 0.5})
    results = [bench.send("complete", f"question {n}", chat) for n in range(6)]
    for result in results:
        assert "".join(delta.text for delta in stream(result, timeout=20)) == result.get(timeout=20).text
    assert sum(result.get().effort.retries for result in results) > 0


def test_every_delta_is_elsewhere_before_the_server_sends_the_next(bench: TaskBench, chat: str) -> None:
    """The server sends a piece only when the one before it has been read here: whoever held one back would wait."""
    read = threading.Semaphore(1)
    words = [f"word-{n} " for n in range(10)]

    class Patient(Quiet):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for word in words:
                assert read.acquire(timeout=60), f"{word!r} waits for its predecessor to be read"
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                self.wfile.write(b"data: " + json.dumps({"model": "patient", "choices": [choice]}).encode() + b"\n\n")
            last = {"index": 0, "delta": {}, "finish_reason": "stop"}
            self.wfile.write(b"data: " + json.dumps({"model": "patient", "choices": [last]}).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")

    with serving(Patient) as url:
        bench.openai("chat_completion", f"{chat}-patient", url)
        seen = []
        for delta in stream(bench.send("complete", HELLO, f"{chat}-patient"), timeout=60):
            if delta.text:
                seen.append(delta.text)
                read.release()
    assert seen == words


def test_a_reader_may_lose_patience(bench: TaskBench, chat: str) -> None:
    with pytest.raises(StreamTimedOut, match="penstock lanes"):
        list(stream("a-task-that-never-was", timeout=0.3))
    with pytest.raises(TimeoutError):
        list(stream("a-task-that-never-was", timeout=0.1))


def test_a_readers_stream_is_no_business_of_other_tasks(bench: TaskBench, stage: Stage) -> None:
    bench.openai("text_embedding", "docs", stage.stand_in.url)
    result = bench.send("embed", ["a text"], "docs")
    with pytest.raises(InputInvalid, match="no completion"):
        list(stream(result, timeout=20))


def test_a_server_that_ignores_stream_is_read_whole(bench: TaskBench, stage: Stage, chat: str) -> None:
    asked: list[bytes] = []

    class Old(Quiet):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["content-length"])))
            choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
            body = json.dumps({"model": "old", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Old) as url:
        bench.openai("chat_completion", chat, url)
        wait_until(lambda: bench.send("complete", HELLO, chat).get(timeout=20).model == "old", "the changed endpoint")
        result = bench.send("complete", HELLO, chat)
        assert [delta.text for delta in stream(result, timeout=20)] == ["whole"]
        assert json.loads(asked[-1])["stream"] is True


def test_a_dead_workers_stream_starts_anew_and_readers_are_told(bench: TaskBench, stage: Stage, chat: str) -> None:
    whole = bench.send("complete", HELLO, chat, stream=False).get(timeout=20).text
    stage.stand_in.configure(token_delay_ms=150)
    result = bench.send("complete", HELLO, chat)
    texts, restarts = [""], 0
    for delta in stream(result, timeout=20):
        if delta.restart:
            restarts += 1
            texts.append("")
        texts[-1] += delta.text
        if len(texts[0].split()) == 4 and restarts == 0 and stage.workers[-1].running:
            stage.workers[-1].kill()
            stage.start_worker()
    assert restarts == 1
    assert 0 < len(texts[0]) < len(whole)
    assert texts[1] == whole
    answer = result.get(timeout=20)
    assert answer.text == whole
    assert answer.effort.possibly_billed_twice == 1
    late = list(stream(result, timeout=20))
    assert "".join(delta.text for delta in late) == whole
    assert not any(delta.restart for delta in late), "who comes late reads the last run alone"
