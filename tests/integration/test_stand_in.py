"""The stand-in over HTTP: limits, faults, statistics and control, as its users meet them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from penstock.stand_in.options import options
from penstock.stand_in.server import listening
from penstock.stand_in.vectors import vector, vectors

BILLED_FAULTS = ["reset-after", "malformed", "truncated", "short", "wrong-dimension", "nan", "shuffled"]
UNBILLED_FAULTS = ["reset-before", "error-200", "html-200", "empty-200", "content-filter", "too-long", "500", "503"]


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        listening(options(given)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=90) as client,
    ):
        yield client


def body(*texts: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "input": list(texts), **more}


async def embed(client: httpx.AsyncClient, *texts: str, **more: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json=body(*texts, **more))


async def stats(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/_stand_in/stats")).json()


async def test_vectors_come_as_base64_and_as_floats_bit_for_bit():
    texts = ["read a zip archive", "naïve 文本 🙂", "x" * 5000]
    async with serving(dimensions=64) as client:
        coded = (await embed(client, *texts, encoding_format="base64")).json()
        plain = (await embed(client, *texts, dimensions=16)).json()
        one = (await client.get("/_stand_in/vector", params={"text": texts[1]})).json()
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in coded["data"]]
    assert [item["index"] for item in coded["data"]] == [0, 1, 2]
    assert np.array_equal(rows, vectors(texts, 64))
    assert np.array_equal(np.array([item["embedding"] for item in plain["data"]], np.float32), vectors(texts, 16))
    assert base64.b64decode(one["embedding"]) == vector(texts[1], 64).tobytes()
    assert coded["usage"] == {"prompt_tokens": 5 + 5 + 1250, "total_tokens": 1260}


@pytest.mark.parametrize(
    ("sent", "status", "part"),
    [
        ({"input": []}, 400, "not empty"),
        ({"input": [""]}, 400, "empty string"),
        ({"input": [1.5]}, 400, "neither strings"),
        ({"input": 7}, 400, "must be a string"),
        ({}, 400, "must be a string"),
        ({"input": "a", "dimensions": 0}, 400, "'dimensions'"),
        ({"input": "a", "encoding_format": "int8"}, 400, "'encoding_format'"),
        ({"input": ["a"] * 9}, 400, "Too many inputs. The max number of inputs is 8."),
        ({"input": "a" * 401}, 400, "maximum context length is 100 tokens, however you requested 101"),
        ({"input": ["a" * 400] * 4}, 400, "Requested 400 tokens, max 300 tokens per request"),
        ({"input": "a", "model": "unknown"}, 404, "`unknown` does not exist"),
        ({"input": [[1, 2, 3], [4]]}, 200, '"prompt_tokens":4'),
        ({"input": [1, 2, 3]}, 200, '"prompt_tokens":3'),
    ],
)
async def test_a_request_is_held_to_its_format_and_the_caps(sent, status, part):
    async with serving(models="m", max_inputs=8, max_input_tokens=100, max_request_tokens=300) as client:
        answer = await client.post("/v1/embeddings", json={"model": "m", **sent})
    assert (answer.status_code, part in answer.text) == (status, True), answer.text


async def test_a_body_that_is_no_json_object_is_a_400():
    async with serving() as client:
        for sent in (b"{", b"[]", b""):
            assert (await client.post("/v1/embeddings", content=sent)).status_code == 400


async def test_only_known_keys_are_let_in_and_none_is_ever_shown():
    async with serving(api_key="good,better") as client:
        found = [
            (await client.post("/v1/embeddings", json=body("a"), headers=headers)).status_code
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Bearer good"},
                {"api-key": "better"},
            )
        ]
        report = (await client.get("/_stand_in/stats")).text
    assert found == [401, 401, 200, 200]
    assert "better" not in report


async def test_requests_over_the_limit_are_429_with_all_that_openai_sends():
    async with serving(rpm=60, tpm=60_000, retry_after="header,ms,message") as client:
        first, second = await embed(client, "a" * 40), await embed(client, "a")
    assert (first.status_code, second.status_code) == (200, 429)
    assert first.headers["x-ratelimit-limit-requests"] == "60"
    assert first.headers["x-ratelimit-remaining-tokens"] == "59990"
    assert first.headers["x-ratelimit-reset-tokens"] == "10ms"
    assert second.headers["retry-after"] == "1"
    assert 0 < int(second.headers["retry-after-ms"]) <= 1000
    error = second.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "on requests per min (RPM): Limit 60, Used 1, Requested 1. Please try again in " in error["message"]


async def test_tokens_over_the_limit_are_429_of_their_own_kind():
    async with serving(tpm=600) as client:
        answers = [await embed(client, "a" * 80), await embed(client, "a")]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error"]["type"] == "tokens"


async def test_a_limit_is_exact_however_many_ask_at_once():
    async with serving(rpm=3000, window="bucket-1s") as client:
        started = time.monotonic()
        answers = await asyncio.gather(*(embed(client, "a") for _ in range(200)))
        took = time.monotonic() - started
        report = await stats(client)
    passed = sum(answer.status_code == 200 for answer in answers)
    assert 50 <= passed <= 50 + took * 50 + 1
    assert report["statuses"] == {"200": passed, "429": 200 - passed}
    assert report["served"] == report["texts_billed"] == passed


async def test_a_client_that_obeys_retry_after_ms_gets_through_at_the_limit():
    async with serving(rpm=1200, window="gcra", retry_after="ms") as client:
        started, refused = time.monotonic(), 0
        for _ in range(20):
            while (answer := await embed(client, "a")).status_code == 429:
                refused += 1
                await asyncio.sleep(int(answer.headers["retry-after-ms"]) / 1000)
        took = time.monotonic() - started
    assert took >= 19 * 0.05
    assert refused <= 25


async def test_more_requests_at_a_time_than_allowed_are_429():
    async with serving(max_concurrent=3, latency_ms=300) as client:
        answers = await asyncio.gather(*(embed(client, "a") for _ in range(8)))
        report = await stats(client)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
    assert report["in_flight_maximum"] >= 3


async def test_quotas_may_be_each_models_own():
    async with serving(rpm=60, quota_by="model") as client:
        found = [(await embed(client, "a", model=model)).status_code for model in ("one", "two", "one")]
    assert found == [200, 200, 429]


@pytest.mark.parametrize("kind", BILLED_FAULTS)
async def test_faults_after_the_work_are_billed(kind):
    async with serving(fault={kind: 1}) as client:
        try:
            answer = await embed(client, "a", "b", "c", encoding_format="base64")
        except httpx.TransportError:
            answer = None
        report = await stats(client)
    assert (report["texts_billed"], report["faults"]) == (3, {kind: 1})
    _check_answer(kind, answer)


def _check_answer(kind: str, answer: httpx.Response | None) -> None:
    if kind in ("reset-after", "truncated"):
        assert answer is None
        return
    assert answer is not None
    assert answer.status_code == 200
    if kind == "malformed":
        with pytest.raises(json.JSONDecodeError):
            answer.json()
        return
    data = answer.json()["data"]
    rows = {item["index"]: np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data}
    right = {index: np.array_equal(row, vector("abc"[index])) for index, row in rows.items()}
    assert [item["index"] for item in data] != [0, 1, 2] if kind == "shuffled" else True
    expected = {"short": {0: True, 1: True}, "shuffled": {0: True, 1: True, 2: True}}
    assert right == expected.get(kind, {0: False, 1: True, 2: True})
    if kind == "nan":
        assert np.isnan(rows[0]).any()
    if kind == "wrong-dimension":
        assert len(rows[0]) == 255


@pytest.mark.parametrize("kind", UNBILLED_FAULTS)
async def test_faults_before_the_work_are_not_billed(kind):
    async with serving(fault={kind: 1}) as client:
        if kind == "reset-before":
            with pytest.raises(httpx.TransportError):
                await embed(client, "a")
        else:
            answer = await embed(client, "a")
            assert answer.status_code == (int(kind) if kind.isdecimal() else 400 if "-2" not in kind else 200)
        report = await stats(client)
    assert (report["texts_billed"], report["faults"]) == (0, {kind: 1})


async def test_stalls_and_slow_answers_are_late_and_right():
    async with serving(stall_s=0.4, slow_s=0.2, latency_ms=50, jitter_ms=20) as client:
        for text, least_s in (("[[stall]]", 0.45), ("[[slow]]", 0.25), ("plain", 0.05)):
            started = time.monotonic()
            answer = await embed(client, text)
            assert time.monotonic() - started >= least_s
            assert answer.json()["data"][0]["embedding"] == pytest.approx(vector(text).tolist())


@pytest.mark.parametrize("mark", ["stall", "slow"])
async def test_a_late_answer_holds_up_no_other(mark):
    async with serving(**{f"{mark}_s": 3600}) as client:
        late = asyncio.create_task(embed(client, f"[[{mark}]]"))
        while not (await stats(client))["in_flight"]:
            await asyncio.sleep(0.01)
        assert (await embed(client, "plain")).status_code == 200
        assert not late.done()
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late


async def test_poison_spoils_every_batch_it_is_in_and_no_other():
    async with serving(poison={"BAD": "500"}, name_input=True) as client:
        found = [(await embed(client, *texts)).status_code for texts in (["a", "BAD b"], ["a"], ["BAD b"], ["c", "d"])]
        named = (await embed(client, "a", "b", "x [[too-long]]")).json()["error"]
    assert found == [500, 200, 500, 200]
    assert named["param"] == "input[2]"


@pytest.mark.parametrize(
    ("refuse", "status", "code"),
    [
        ("insufficient_quota", 429, "insufficient_quota"),
        ("billing_hard_limit_reached", 429, "billing_hard_limit_reached"),
        ("slow_down", 429, "slow_down"),
        ("401", 401, "invalid_api_key"),
        ("403", 403, "insufficient_permissions"),
        ("404", 404, "model_not_found"),
    ],
)
async def test_refusals_start_and_end_where_they_are_told_to(refuse, status, code):
    async with serving(refuse=refuse, refuse_from=2, refuse_until=3) as client:
        answers = [await embed(client, "a") for _ in range(4)]
        report = await stats(client)
    assert [answer.status_code for answer in answers] == [200, status, status, 200]
    assert answers[1].json()["error"]["code"] == code
    assert report["texts_billed"] == 2


async def test_a_billing_429_names_no_delay():
    async with serving(refuse="insufficient_quota", retry_after="header,ms,message") as client:
        answer = await embed(client, "a")
    assert not {"retry-after", "retry-after-ms"} & set(answer.headers)


async def test_a_cool_down_refuses_everything_for_its_time():
    async with serving() as client:
        assert (await embed(client, "a")).status_code == 200
        await client.post("/_stand_in/config", json={"cool_down_s": 0.5, "retry_after": "header,ms"})
        refused = await embed(client, "a")
        await asyncio.sleep(int(refused.headers["retry-after-ms"]) / 1000)
        after = await embed(client, "a")
    assert (refused.status_code, refused.headers["retry-after"], after.status_code) == (429, "1", 200)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("detail", {"detail": "Too many inputs. The max number of inputs is 1."}),
        ("string", {"error": "Too many inputs. The max number of inputs is 1."}),
        ("text", "Too many inputs. The max number of inputs is 1."),
    ],
)
async def test_errors_may_have_the_shapes_of_other_servers(shape, expected):
    async with serving(errors=shape, max_inputs=1) as client:
        answer = await embed(client, "a", "b")
    assert (answer.text if shape == "text" else answer.json()) == expected


async def test_servers_that_ignore_base64_and_say_nonsense_of_usage():
    async with serving(ignore_base64=True, usage="nonsense", should_retry="false", fault={"500": 0}) as client:
        answer = (await embed(client, "a", encoding_format="base64")).json()
        failed = await embed(client, "[[500]]")
        await client.post("/_stand_in/config", json={"usage": "absent"})
        silent = (await embed(client, "a")).json()
    assert isinstance(answer["data"][0]["embedding"], list)
    assert answer["usage"]["prompt_tokens"] < 0
    assert failed.headers["x-should-retry"] == "false"
    assert "usage" not in silent


async def test_options_change_while_it_runs_all_or_none():
    async with serving() as client:
        changed = await client.post("/_stand_in/config", json={"rpm": 60, "fault": {"500": 1}})
        wrong = await client.post("/_stand_in/config", json={"rpm": 600, "window": "x", "bogus": 1})
        kept = (await client.get("/_stand_in/config")).json()
        no_object = await client.post("/_stand_in/config", json=[1])
    assert changed.json()["fault"] == {"500": 1.0}
    assert wrong.status_code == 400
    assert "--window" in wrong.json()["error"]
    assert "--bogus" in wrong.json()["error"]
    assert (kept["rpm"], no_object.status_code) == (60, 400)


async def test_a_reset_forgets_counts_and_starts_the_same_faults_again():
    async with serving(fault={"500": 0.5}, seed=3, rpm=600_000) as client:
        first = [(await embed(client, "a")).status_code for _ in range(12)]
        before = await stats(client)
        empty = (await client.post("/_stand_in/reset")).json()
        second = [(await embed(client, "a")).status_code for _ in range(12)]
    assert first == second
    assert {200, 500} == set(first)
    assert before["requests"] == 12
    assert (empty["requests"], empty["texts_billed"], empty["timeline"]) == (0, 0, [])


async def test_texts_paid_twice_are_counted():
    async with serving() as client:
        for texts in (["a", "b"], ["b", "c"], ["b"]):
            await embed(client, *texts)
        report = await stats(client)
    assert (report["texts_billed"], report["distinct_texts"]) == (5, 3)
    assert (report["texts_billed_more_than_once"], report["billed_again"]) == (1, 2)
    assert report["most_billed"] == [{"count": 3, "text": "b"}]


# A process of its own


def start(*arguments: str, **more: Any) -> tuple[subprocess.Popen[str], str]:
    argv = [sys.executable, "-m", "penstock.stand_in", "--port", "0", "--json", *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **more)
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["pid"] == process.pid
    return process, str(line["url"])


def test_it_ends_with_its_standard_input():
    process, url = start("--with-parent", "--rpm", "60", stdin=subprocess.PIPE)
    with process:
        assert httpx.get(f"{url}/_stand_in/config", trust_env=False).json()["rpm"] == 60
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


def test_it_ends_with_its_parent(wait_until: Callable[..., Any]):
    argv = [sys.executable, "-m", "penstock.stand_in", "--port", "0", "--json", "--with-parent"]
    code = f"import subprocess, time; subprocess.Popen({argv}, stdin=subprocess.DEVNULL); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())["pid"]
        parent.kill()
        parent.wait(20)
        wait_until(lambda: not _alive(child), "the end of the orphan", 20)


def _alive(pid: int) -> bool:
    """Tell whether a process runs; an orphan's zombie is nobody's here, and does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - one line of a pseudo-file
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_at_once_even_with_a_stalled_request(number, code):
    process, url = start("--fault", "stall=1")
    with process, httpx.Client(trust_env=False, timeout=0.5) as client:
        with pytest.raises(httpx.TransportError):
            client.post(f"{url}/v1/embeddings", json=body("a"))
        os.kill(process.pid, number)
        assert process.wait(20) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rpm", "0"], "error: --rpm: Input should be greater than 0"),
        (["--fault", "boom=1"], "error: --fault: no fault is called 'boom'"),
        (["--host", "no.such.host.invalid"], "error: cannot listen on no.such.host.invalid"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(arguments, message):
    argv = [sys.executable, "-m", "penstock.stand_in", "--port", "0", *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named():
    process, url = start("--with-parent", stdin=subprocess.PIPE)
    with process:
        port = url.rpartition(":")[2]
        argv = [sys.executable, "-m", "penstock.stand_in", "--port", port]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, f"port {port}" in ended.stderr) == (2, True)
        assert process.stdin is not None
        process.stdin.close()
