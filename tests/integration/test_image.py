"""``generate_image`` through real workers with two slots each, so that a held one shows, against the stand-in."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from celery.result import AsyncResult

from penstock.config.errors import InferenceFailed, InputInvalid, WrongTaskType
from penstock.workers.pool.loop import close_process_loop
from penstock.workers.results.codec import encode
from penstock.workers.results.types import ImageResult
from penstock.workers.runtime import close_runtime
from support.task_bench import SHORT_LEASES, Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until

_names = itertools.count()
PNG = b"\x89PNG\r\n\x1a\n"
USUAL: dict[str, Any] = {
    "image_states": ["notRunning", "running", "succeeded"],
    "image_retry_after_s": 1,
    "image_poll_errors": 0,
    "image_failed_status": "200",
    "image_item_errors": 0,
    "image_location": "own",
    "image_operations": None,
    "latency_ms": 0,
    "fault": {},
}


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, SHORT_LEASES, USUAL) as found:
        found.start_worker("-c", "2")
        yield found


@pytest.fixture
def pictures(stage: Stage, bench: TaskBench) -> str:
    """An endpoint whose images are submitted and polled, with a lane of its own."""
    name = f"pictures-{next(_names)}"
    bench.azure_images(name, stage.stand_in.url, deployment_id=name)
    return name


@pytest.fixture
def instant(stage: Stage, bench: TaskBench) -> str:
    """An endpoint that answers with the images."""
    name = f"instant-{next(_names)}"
    bench.openai("image_generation", name, stage.stand_in.url, model="dall-e-2")
    return name


def events(stage: Stage, name: str) -> int:
    return int(stage.stand_in.stats()["events"].get(name, 0))


def states_of(result: AsyncResult) -> dict[str, Any]:
    """Wait for the end of a task; return the metadata of each state that it had."""
    seen: dict[str, Any] = {}

    def ended() -> bool:
        meta = result.backend.get_task_meta(result.id)
        seen[meta["status"]] = meta["result"]
        return meta["status"] in ("SUCCESS", "FAILURE")

    wait_until(ended, "the images", 30, every=0.01)
    return seen


def fails(result: AsyncResult) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as caught:
        result.get(timeout=30)
    return caught.value


# Operations ---------------------------------------------------------------------------------------------------------


def test_submitted_once_then_polled_kept_and_deleted(
    bench: TaskBench, stage: Stage, pictures: str, folder: Path
) -> None:
    submits, deletes = events(stage, "image_submits"), events(stage, "image_deletes")
    arguments = {"n": 2, "size": "512x512", "out": str(folder / "images"), "delete": True}
    result = bench.send("generate_image", "An avocado chair", pictures, **arguments)
    seen = states_of(result)
    images = seen["SUCCESS"]
    assert list(seen) == ["PENDING", "SUBMITTED", "RUNNING", "SUCCESS"]
    assert seen["RUNNING"]["operation_id"] == seen["SUBMITTED"]["operation_id"] == images.operation_id
    assert list(images.times) == ["SUBMITTED", "RUNNING", "SUCCEEDED"]
    assert images.times["SUCCEEDED"] - images.times["SUBMITTED"] >= 3, "polled faster than the server's pace"
    assert [Path(file).name for file in images.files] == [f"{images.operation_id}-{n}.png" for n in (0, 1)]
    assert all(Path(file).read_bytes().startswith(PNG) for file in images.files)
    assert {path.name for path in (folder / "images").iterdir()} == {Path(file).name for file in images.files}
    assert events(stage, "image_submits") == submits + 1
    assert events(stage, "image_deletes") == deletes + 1
    assert images.effort.requests == 4
    with stage.valkey.client() as client:
        assert not client.exists(f"penstock:image:{result.id}", "penstock:due", "penstock:due-messages")
        wait_until(lambda: client.zcard("penstock:unacked_index") == 0, "the message is acknowledged")


def test_operations_in_flight_are_bounded_and_hold_no_slot(bench: TaskBench, stage: Stage, pictures: str) -> None:
    bench.openai("completion", "chat", stage.stand_in.url)
    bench.send("complete", "hello", "chat").get(timeout=20)
    # Two operations to be asked about in an hour, two more wait for theirs: as many as the worker has slots, and more.
    stage.stand_in.configure(image_operations=2, image_states=["running", "succeeded"], image_retry_after_s=3600)
    results = [bench.send("generate_image", f"chair {n}", pictures) for n in range(4)]
    wait_until(lambda: sum(each.state in ("SUBMITTED", "RUNNING") for each in results) == 2, "two operations run")
    bench.send("complete", "hello again", "chat").get(timeout=20)
    assert not any(each.ready() for each in results)
    stage.stand_in.configure(image_retry_after_s=1)
    with stage.valkey.client() as client:
        for member in client.zrange("penstock:due", 0, -1):  # the hour passes
            client.zincrby("penstock:due", -3_600_000, member)
    assert [len(each.get(timeout=40).urls) for each in results] == [1] * 4
    assert stage.stand_in.stats()["statuses"].get("429", 0) == 0


def test_every_other_end_is_a_typed_failure(bench: TaskBench, stage: Stage, pictures: str) -> None:
    table: list[tuple[list[str], str, str, str]] = [
        (["running", "failed"], "own", "content_filter", "safety system"),
        (["running", "canceled"], "own", "operation_canceled", "too long"),
        (["deleted"], "own", "operation_deleted", "deleted"),
        (["succeeded"], "foreign", "foreign_operation_location", "another server"),
    ]
    submits = events(stage, "image_submits")
    bench.azure_images(pictures, stage.stand_in.url, deployment_id=pictures, max_concurrent_operations=9)
    results = []
    for number, (states, location, _, _) in enumerate(table, 1):
        stage.stand_in.configure(image_states=states, image_location=location)
        results.append(bench.send("generate_image", "An avocado chair", pictures))
        wait_until(lambda many=number: events(stage, "image_submits") == submits + many, "it is submitted")
    for result, (_, _, code, words) in zip(results, table, strict=True):
        error = fails(result)
        assert (error.code, words in str(error)) == (code, True)
        assert "a-key-of-no-worth" not in str(error)
    assert events(stage, "image_submits") == submits + len(table)


def test_a_failure_that_comes_as_a_400_with_the_operation_is_read(
    bench: TaskBench, stage: Stage, pictures: str
) -> None:
    stage.stand_in.configure(image_states=["failed"], image_failed_status="400")
    error = fails(bench.send("generate_image", "An avocado chair", pictures))
    assert (error.code, error.status) == ("content_filter", 400)


def test_polls_that_go_wrong_are_made_again(bench: TaskBench, stage: Stage, pictures: str) -> None:
    stage.stand_in.configure(image_poll_errors=2, image_states=["succeeded"], image_location="relative")
    submits, polls = events(stage, "image_submits"), events(stage, "image_polls")
    images = bench.send("generate_image", "An avocado chair", pictures).get(timeout=30)
    assert len(images.urls) == 1
    assert events(stage, "image_submits") == submits + 1
    assert events(stage, "image_polls") == polls + 3


def test_single_images_fail_alone(bench: TaskBench, stage: Stage, pictures: str, folder: Path) -> None:
    stage.stand_in.configure(image_item_errors=1, image_states=["succeeded"], image_location="missing")
    arguments = {"n": 3, "out": str(folder)}
    images = bench.send("generate_image", "An avocado chair", pictures, **arguments).get(timeout=30)
    assert [(failure.index, failure.code) for failure in images.failures] == [(0, "content_filter")]
    assert [Path(file).stem.rpartition("-")[2] for file in images.files] == ["1", "2"]


def test_an_operation_is_given_up_at_its_deadline(bench: TaskBench, stage: Stage, pictures: str) -> None:
    stage.stand_in.configure(image_states=["running"], image_retry_after_s=3600)
    error = fails(bench.send("generate_image", "An avocado chair", pictures, deadline_s=1.5))
    assert error.code == "deadline_exceeded"
    with stage.valkey.client() as client:
        assert not client.keys(f"penstock:lane:*{pictures}*:flight")


def test_wrong_calls_fail_before_anything_is_sent(bench: TaskBench, stage: Stage, pictures: str) -> None:
    bench.openai("text_embedding", "docs", stage.stand_in.url)
    before = stage.stand_in.stats()["requests"]
    queue = f"penstock.{pictures}.interactive"
    for error, arguments, more in [
        (WrongTaskType, ("a chair", "docs"), {}),
        (InputInvalid, ("", pictures), {}),
        (InputInvalid, (["a chair"], pictures), {}),
        (InputInvalid, ("a chair", pictures), {"out": "images"}),
        (InputInvalid, ("a chair", pictures), {"delete": True}),
        (InputInvalid, ("a chair", pictures), {"deadline_s": 0}),
    ]:
        with pytest.raises(error):
            bench.app.send_task("penstock.generate_image", arguments, more, queue=queue).get(timeout=20)
    assert stage.stand_in.stats()["requests"] == before


def test_called_directly_it_waits_here(
    bench: TaskBench, stage: Stage, pictures: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.tasks import complete, generate_image

    bench.openai("completion", "chat", stage.stand_in.url)
    stage.stand_in.configure(image_states=["running", "succeeded"])
    monkeypatch.chdir(folder)
    close_runtime()
    try:
        images = generate_image(complete("Describe a chair", "chat"), pictures, out="images")
        with pytest.raises(InputInvalid, match="JSON"):
            generate_image("a chair", pictures, style=object())
    finally:
        close_runtime()
        close_process_loop()
    assert [path.name for path in (folder / "images").iterdir()] == [f"{images.operation_id}-0.png"]
    with stage.valkey.client() as client:
        assert not client.keys("penstock:lane:*:flight"), "a place among the operations was kept"


# Images at once -----------------------------------------------------------------------------------------------------


def test_synchronous_images_come_by_the_same_task(bench: TaskBench, instant: str, folder: Path) -> None:
    images = bench.send("generate_image", "An avocado chair", instant, n=2).get(timeout=20)
    assert len(images.urls) == 2
    assert images.operation_id is None
    arguments = {"response_format": "b64_json", "out": f"{folder}/images"}
    kept = bench.send("generate_image", "An avocado chair", instant, **arguments).get(timeout=20)
    assert (len(kept.files), kept.b64, kept.urls) == (1, (), ())
    assert Path(kept.files[0]).read_bytes().startswith(PNG)


def test_a_refused_submit_is_made_again_and_an_unknown_one_never(bench: TaskBench, stage: Stage, instant: str) -> None:
    stage.stand_in.configure(fault={"503": 0.4})
    for n in range(3):
        assert bench.send("generate_image", f"chair {n}", instant).get(timeout=30).urls
    stage.stand_in.configure(fault={"reset-after": 1})
    before = stage.stand_in.stats()["requests"]
    error = fails(bench.send("generate_image", "An avocado chair", instant))
    assert error.code == "submit_unknown"
    assert "not sent again" in str(error)
    assert stage.stand_in.stats()["requests"] == before + 1


# Deaths -------------------------------------------------------------------------------------------------------------


def test_kill_9_at_each_state_submits_exactly_once(bench: TaskBench, stage: Stage, pictures: str, folder: Path) -> None:
    """One is killed in its submit, one while set aside, one in a poll."""
    doomed = stage.workers[-1]
    bench.azure_images("other", stage.stand_in.url, deployment_id="other")
    submits = events(stage, "image_submits")
    stage.stand_in.configure(image_retry_after_s=8, image_states=["succeeded"])
    aside = bench.send("generate_image", "set aside", pictures, out=str(folder))
    wait_until(lambda: aside.state == "SUBMITTED", "the first is submitted")
    stage.stand_in.configure(image_retry_after_s=1)
    polled = bench.send("generate_image", "in a poll", pictures, out=str(folder))
    wait_until(lambda: polled.state == "SUBMITTED", "the second is submitted")
    stage.stand_in.configure(latency_ms=30_000)
    unknown = bench.send("generate_image", "in its submit", "other")
    wait_until(lambda: events(stage, "image_submits") == submits + 3, "the third's submit has come")
    stage.stand_in.child.send(signal.SIGSTOP)  # the poll gets no answer
    with stage.valkey.client() as client:
        wait_until(lambda: client.hlen("penstock:unacked") == 2, "the second is in its poll")
        assert client.zcard("penstock:due") == 1
        doomed.kill()
        stage.stand_in.child.send(signal.SIGCONT)
        stage.stand_in.configure(latency_ms=0)
        stage.start_worker("-c", "2")
        assert fails(unknown).code == "submit_unknown"
        for result in (polled, aside):
            images = result.get(timeout=30)
            assert Path(images.files[0]).read_bytes().startswith(PNG)
        assert events(stage, "image_submits") == submits + 3
        assert client.zcard("penstock:due") == 0
        wait_until(lambda: client.hlen("penstock:unacked") == 0, "all messages are acknowledged")


@pytest.mark.parametrize("stage_kept", ["answered", "done", "failed", "submitting"])
def test_a_message_delivered_again_goes_on_from_the_record(
    bench: TaskBench, stage: Stage, pictures: str, folder: Path, stage_kept: str
) -> None:
    task_id = str(uuid4())
    url = f"{stage.stand_in.url}/_stand_in/images/00ff00.png"
    kept = {
        "stage": stage_kept,
        "deadline": time.time() + 600,
        "operation_id": "op-1",
        "effort": {"requests": 3, "retries": 0, "rate_limited": 0, "possibly_billed_twice": 0},
        "error": ["it failed", "content_filter", 400, 2] if stage_kept == "failed" else None,
    }
    with stage.valkey.client() as client:
        fields: dict[Any, Any] = {"operation": orjson.dumps(kept)}
        if stage_kept in ("answered", "done"):
            fields["result"] = encode(ImageResult(urls=(url,), operation_id="op-1"))
        client.hset(f"penstock:image:{task_id}", mapping=fields)
        client.expire(f"penstock:image:{task_id}", 600)
    before = stage.stand_in.stats()["requests"]
    queue = f"penstock.{pictures}.interactive"
    result = bench.app.send_task(
        "penstock.generate_image", ("a chair", pictures), {"out": str(folder)}, task_id=task_id, queue=queue
    )
    if stage_kept in ("failed", "submitting"):
        assert fails(result).code == {"failed": "content_filter", "submitting": "submit_unknown"}[stage_kept]
    else:
        images = result.get(timeout=20)
        assert [Path(file).name for file in images.files] == (["op-1-0.png"] if stage_kept == "answered" else [])
    assert stage.stand_in.stats()["requests"] == before


def test_what_flower_and_logs_show_has_no_prompt_and_no_url(stage: Stage) -> None:
    for worker in stage.workers:
        assert "succeeded" in worker.log or "raised" in worker.log
        assert "chair" not in worker.log
        assert "_stand_in/images" not in worker.log
