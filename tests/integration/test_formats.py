"""What the release before format numbers wrote is read and gone on with; what a newer one wrote is refused by name."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis
from celery.result import AsyncResult
from kombu.exceptions import DecodeError

from penstock.config.endpoints.registry import Registry
from penstock.config.errors import ConfigurationError, FormatTooNew
from penstock.config.formats import ENDPOINT_RECORD, FIELD, IMAGE_RECORD, LEDGER, MESSAGE, MESSAGE_HEADER, RESULT
from penstock.config.names import BULK, IMAGE_TASK, endpoints_key, image_key, queue_key, queue_name
from penstock.config.redis import connect
from penstock.config.settings import Settings
from penstock.tasks.backfill.ledger.jobs import known_jobs, read_job
from penstock.tasks.backfill.ledger.ledger import Ledger
from penstock.tasks.images.record import OperationRecord, pack, unpack
from penstock.workers.results.codec import decode
from penstock.workers.results.types import Effort, Failure, Usage
from support.backfills import DIMENSIONS, deployed
from support.task_bench import Stage, TaskBench, open_stage
from support.valkey import ValkeyServer

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "format_1"
PREFIX = "penstock:"
SECRET_KEY = "the secret key of the fixtures"
NEWER = 99


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    env = {"PENSTOCK_SECRET_KEY": SECRET_KEY}
    with open_stage(valkey_server, env, {"latency_ms": 0}, dimensions=DIMENSIONS) as found:
        found.start_worker()
        yield found


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with connect(valkey.url) as client:
        yield client


# Ledgers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def old_backfill(tmp_path: Path) -> Path:
    """The killed backfill, where it may be gone on with."""
    shutil.copytree(OLD / "backfill", tmp_path / "out")
    shutil.copy(OLD / "corpus.jsonl", tmp_path)
    return tmp_path


def test_a_backfill_that_an_older_release_began_is_finished(
    old_backfill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in (OLD / "corpus.jsonl").read_bytes().splitlines() if line != b"{bad"]
    rows = [row for row in map(json.loads, lines) if row["id"] not in ("poison", "blank")]
    assert len(rows) == 203
    with deployed(poison={"ZZPOISON": "content-filter"}) as made:
        rig = made.rig(old_backfill, monkeypatch, max_inputs_per_request=4)
        rig.run("corpus.jsonl", "--no-chunk", expect=1)
        rig.check({(row["id"], 0): row["text"] for row in rows})
        codes = sorted((letter["id"] or "", letter["code"]) for letter in rig.failed())
        assert codes == [("", "invalid_json"), ("blank", "empty_text"), ("poison", "content_filter")]
        report = rig.report()
        assert (report["documents"], report["embedded"], report["failed"]) == (206, 203, 3)
        assert report["duplicates_reused"] == 3
        assert made.stand_in.stats()["texts_billed_more_than_once"] == 0
        # 48 texts were in shards of the old run: they are not paid for again.
        assert made.stand_in.stats()["texts_billed"] == 200 - 48
        made.stand_in.configure(poison={})
        rig.retry(expect=1)
        assert sorted(letter["id"] or "" for letter in rig.failed()) == ["", "blank"]
        assert (rig.report()["embedded"], rig.report()["failed"]) == (204, 2)
        rig.stop()


def test_a_newer_ledger_is_refused_and_left_as_it_is(old_backfill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_backfill / "out" / ".penstock" / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO facts VALUES (?, ?)", (FIELD, str(NEWER)))
        db.commit()
    before = path.read_bytes()
    for read in (lambda: Ledger(path.parent), lambda: read_job(old_backfill / "out")):
        with pytest.raises(
            FormatTooNew,
            match=rf"ledger .*ledger.sqlite3.*of format {NEWER}.*up to {LEDGER.number}",
        ):
            read()
    assert path.read_bytes() == before
    (old_backfill / "jobs").mkdir()
    (old_backfill / "jobs" / "a.json").write_bytes(orjson.dumps({"out": str(old_backfill / "out")}))
    assert [(job.name, job.state) for job in known_jobs(old_backfill)] == [("out", "newer")]


def test_a_new_ledger_says_its_format(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.begin({"job": "a"})
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as db:
        assert db.execute("SELECT value FROM facts WHERE name = ?", (FIELD,)).fetchone() == (str(LEDGER.number),)


# Endpoints ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(client: redis.Redis, tmp_path: Path) -> Registry:
    """A registry with the endpoint ``other`` as an older release stored it."""
    client.hset(endpoints_key(PREFIX), "other", (OLD / "endpoint.json").read_bytes())
    return Registry(client, Settings(home=tmp_path, secret_key=SECRET_KEY))


def test_an_endpoint_that_an_older_release_stored_is_read_with_its_secrets(registry: Registry) -> None:
    endpoint = registry.get("other")
    assert dict(endpoint.secrets) == {"api_key": "sk-of-the-fixtures"}
    assert endpoint.task_settings["headers"] == {"X-Gateway-Key": "gateway-of-the-fixtures"}
    assert [each.inference_id for each in registry.list()] == ["other"]


def test_its_secrets_still_go_to_no_other_address(registry: Registry, client: redis.Redis) -> None:
    record = json.loads((OLD / "endpoint.json").read_bytes())
    record["service_settings"]["url"] = "http://127.0.0.1:10/v1"
    client.hset(endpoints_key(PREFIX), "other", json.dumps(record))
    with pytest.raises(ConfigurationError, match="changed in the broker"):
        registry.get("other")


def test_put_again_it_is_of_the_new_format(registry: Registry, client: redis.Redis) -> None:
    old = registry.get("other")
    body = {"service": "openai", "service_settings": {"url": "http://127.0.0.1:9/v1", "api_key": "b", "model_id": "m"}}
    assert registry.put("text_embedding", "other", body).version > old.version
    record = json.loads(client.hget(endpoints_key(PREFIX), "other") or b"")
    assert record[FIELD] == ENDPOINT_RECORD.number
    assert "sealed" not in record
    assert dict(registry.get("other").secrets) == {"api_key": "b"}


def raise_(error: Exception) -> None:
    raise error


def test_a_newer_endpoint_is_refused_and_not_replaced(registry: Registry, client: redis.Redis) -> None:
    client.hset(endpoints_key(PREFIX), "other", json.dumps({FIELD: NEWER, "service": "openai"}))
    body = {"service": "openai", "service_settings": {"url": "http://127.0.0.1:9/v1", "api_key": "b", "model_id": "m"}}
    attempts: list[Callable[[], Any]] = [
        lambda: registry.get("other"),
        lambda: raise_(registry.read().unreadable["other"]),
        lambda: registry.put("text_embedding", "other", body),
    ]
    for attempt in attempts:
        with pytest.raises(FormatTooNew, match=rf"the record of endpoint \[other\].*of format {NEWER}.*upgrade"):
            attempt()


# Results ------------------------------------------------------------------------------------------------------------


def test_results_that_an_older_release_stored_are_read() -> None:
    meta = decode((OLD / "results" / "embed.bin").read_bytes())
    embedded = meta["result"]
    assert (meta["status"], meta["children"]) == ("SUCCESS", [])
    assert np.array_equal(embedded.vectors, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (embedded.usage, embedded.effort) == (Usage(7, 0, 7, 1), Effort(2, 1, 1, 1))
    assert embedded.failures == (Failure(1, "content_filter", "refused", 2),)
    answer = decode((OLD / "results" / "complete.bin").read_bytes())
    assert (answer.text, answer.finish_reason, answer.extra) == ("an answer", "stop", {"id": "x"})
    images = decode((OLD / "results" / "image.bin").read_bytes())
    assert (images.urls, images.times) == (("https://images.example/1.png",), {"SUBMITTED": 1.0, "SUCCEEDED": 2.5})


def newer_result() -> bytes:
    data = bytearray((OLD / "results" / "embed.bin").read_bytes())
    assert data[3] < RESULT.number
    data[3] = NEWER
    return bytes(data)


def test_a_newer_result_is_refused_by_a_type_of_ours_that_is_kombus_too() -> None:
    with pytest.raises(FormatTooNew, match=f"a stored result.*of format {NEWER}.*upgrade") as caught:
        decode(newer_result())
    assert isinstance(caught.value, DecodeError)


def test_a_caller_is_told_that_the_result_is_newer(bench: TaskBench, client: redis.Redis) -> None:
    result = AsyncResult("f9c1a4c0-7a0a-4f06-9c1e-0b8a3e8f1c55", app=bench.app)
    client.set(bench.app.backend.get_key_for_task(result.id), newer_result(), ex=60)
    with pytest.raises(FormatTooNew, match="upgrade this side"):
        result.get(timeout=10)


# Image operations ---------------------------------------------------------------------------------------------------


def test_an_image_operation_that_an_older_release_began_is_read() -> None:
    operation = unpack((OLD / "image-operation.json").read_bytes(), "t")
    assert (operation.phase, operation.operation_id, operation.polls) == ("answered", "op-1", 3)
    assert (operation.effort, operation.times) == (Effort(4, 1), {"SUBMITTED": 1.0})


def test_an_image_operation_is_written_with_its_format_and_read_again() -> None:
    operation = OperationRecord("submitted", 5.0, "op-2", effort=Effort(2))
    assert orjson.loads(pack(operation))[FIELD] == IMAGE_RECORD.number
    assert unpack(pack(operation), "t") == operation


def test_a_newer_image_operation_is_refused_and_nothing_is_submitted(
    bench: TaskBench, stage: Stage, client: redis.Redis
) -> None:
    bench.azure_images("pictures", stage.stand_in.url)
    task_id = "3b0f6f0e-5b1c-4b0a-9a58-6b1f5a0d7c21"
    client.hset(image_key(PREFIX, task_id), "operation", orjson.dumps({FIELD: NEWER, "how": "unknown"}))
    client.expire(image_key(PREFIX, task_id), 60)
    before = stage.stand_in.stats()["requests"]
    result = bench.app.send_task(IMAGE_TASK, ("a chair", "pictures"), task_id=task_id, queue=queue_name("pictures"))
    with pytest.raises(FormatTooNew, match=f"the record of image task {task_id}.*of format {NEWER}"):
        result.get(timeout=20)
    assert stage.stand_in.stats()["requests"] == before


# Messages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(client: redis.Redis, bench: TaskBench, stage: Stage) -> str:
    """The endpoint that the older release's messages are for."""
    bench.openai("text_embedding", "other", stage.stand_in.url)
    return "other"


def put_message(client: redis.Redis, queue: str, **headers: Any) -> str:
    """Put an older release's message on its queue; returns its task's id."""
    kind = "bulk" if queue.endswith(BULK) else "interactive"
    message = json.loads((OLD / f"message-{kind}.json").read_bytes())
    assert MESSAGE_HEADER not in message["headers"]
    message["headers"].update(headers)
    client.lpush(queue_key(PREFIX, queue), json.dumps(message))
    return str(message["headers"]["id"])


@pytest.mark.parametrize(("job_class", "count"), [("interactive", 1), ("bulk", 2)])
def test_a_message_that_an_older_release_sent_is_worked_on(
    bench: TaskBench, other: str, client: redis.Redis, job_class: Any, count: int
) -> None:
    task_id = put_message(client, queue_name(other, job_class))
    result = AsyncResult(task_id, app=bench.app).get(timeout=20)
    assert result.vectors.shape == (count, DIMENSIONS)


def test_a_newer_message_is_answered_with_a_typed_error_and_sends_nothing(
    bench: TaskBench, stage: Stage, other: str, client: redis.Redis
) -> None:
    before = stage.stand_in.stats()["requests"]
    task_id = put_message(client, queue_name(other), **{MESSAGE_HEADER: NEWER})
    with pytest.raises(
        FormatTooNew,
        match=rf"penstock\.embed {task_id}.*of format {NEWER}.*up to {MESSAGE.number}",
    ):
        AsyncResult(task_id, app=bench.app).get(timeout=20)
    assert stage.stand_in.stats()["requests"] == before
