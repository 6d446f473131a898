"""An application's own Celery app and workers beside ours: what each sends the other, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.hosts import OURS, STOCK, WITH_OURS, Host, put_endpoints
from support.task_bench import SHORT_LEASES, Stage, TaskBench, open_stage
from support.valkey import ValkeyServer
from support.waiting import wait_until


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, SHORT_LEASES, {"answer_tokens": 12}, dimensions=8) as found:
        found.start_worker("-c", "10")
        found.start_worker("-P", "prefork", "-c", "1", "-Q", "penstock.chunk")
        yield found


@pytest.fixture(scope="module", params=["", OURS], ids=["stock", "ours"])
def host(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Host]:
    """An application, with Celery's own result back end and with ours."""
    found = Host(stage, scheme=request.param)
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def endpoints(bench: TaskBench, stage: Stage) -> None:
    put_endpoints(bench, stage)


@pytest.mark.parametrize("scene", [name for name in STOCK if not name.startswith("plain_")])
def test_any_app_and_ours_work_on_one_canvas(host: Host, scene: str) -> None:
    assert host.run(scene) == {scene: STOCK[scene]}


@pytest.mark.parametrize("host", [""], indirect=True)
@pytest.mark.parametrize("scene", ["plain_send", "plain_error"])
def test_an_app_that_knows_nothing_of_ours_is_answered_in_json(host: Host, scene: str) -> None:
    assert host.run(scene) == {scene: STOCK[scene]}


@pytest.mark.parametrize("host", [OURS], indirect=True)
@pytest.mark.parametrize("scene", WITH_OURS)
def test_an_app_with_our_back_end_sees_our_results_and_its_own(host: Host, scene: str) -> None:
    assert host.run(scene) == {scene: WITH_OURS[scene]}


@pytest.mark.parametrize("host", [""], indirect=True)
def test_nothing_is_left_behind_where_the_others_keys_are(host: Host, stage: Stage) -> None:
    with stage.valkey.client(decode=True) as client:
        client.delete(*[key for key in client.keys("*") if key.startswith("celery-task")] or ["none"])
        host.run("plain_send", "end_in_own", "chords")

        def theirs() -> list[str]:
            keys = [key for key in client.keys("*") if not key.startswith(("penstock:", "_kombu."))]
            return [key for key in keys if client.ttl(key) < 0]

        wait_until(lambda: not theirs(), "all that is left expires", timeout=20)
        assert not client.exists("_kombu.binding.celery", "_kombu.binding.penstock.docs.interactive")
