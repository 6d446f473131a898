"""A wrong id: refused before it is sent, or answered within seconds; what only looks like one is left alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError

from penstock.config.endpoints.registry import Registry
from penstock.config.errors import EndpointNotFound
from penstock.config.names import announced_key
from penstock.config.redis import connect, connect_async
from penstock.config.settings import load_settings
from penstock.tasks.declarations import embed
from penstock.workers.broker.selection import Selection
from penstock.workers.broker.unknown import UnknownQueues
from penstock.workers.directory.announcements import HOLDS_S, announce, ask
from penstock.workers.lua import script
from penstock.workers.runtime import Runtime
from support.app import put_endpoint
from support.stand_in import StandIn
from support.valkey import ValkeyServer
from support.waiting import wait_until
from support.worker import Worker

Workers = Callable[..., list[Worker]]


@pytest.fixture
def client(valkey: ValkeyServer, home: Path, broker_url: str) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def app(harness: Any, broker_url: str, home: Path) -> Any:
    """An app as ours, in this process."""
    return harness.make_app("sender")


@pytest.fixture
def other_app(broker_url: str) -> Iterator[Celery]:
    """A Celery app that knows nothing of ours."""
    with Celery("other", broker=broker_url, backend=broker_url, set_as_current=False) as app:
        yield app


def send(app: Any, inference_id: str, **options: Any) -> Any:
    return app.send_task(embed.name, (["a text"], inference_id), **options)


def send_from_elsewhere(app: Celery, inference_id: str) -> Any:
    return send(app, inference_id, queue=f"penstock:penstock.{inference_id}.interactive")


def put(broker_url: str, url: str = "http://127.0.0.1:9") -> None:
    put_endpoint(broker_url, "text_embedding", "docs", "openai", {"url": f"{url}/v1", "model_id": "m"})


def test_a_wrong_id_is_refused_at_once_where_a_worker_runs(
    app: Any, broker_url: str, client: redis.Redis, worker: Workers
) -> None:
    put(broker_url)
    worker()
    wait_until(lambda: client.exists(announced_key("penstock:")), "the worker is announced")
    with pytest.raises(EndpointNotFound, match=r"not found \[dosc\]: did you mean docs\?"):
        send(app, "dosc")
    with pytest.raises(EndpointNotFound):
        app.signature(embed.name, (["a text"], "dosc")).apply_async()
    assert not client.keys("*dosc*")


def test_a_known_id_costs_one_question_for_many_calls(app: Any, broker_url: str, client: redis.Redis) -> None:
    put(broker_url)
    announce(client, "penstock:", [])
    send(app, "docs")
    asked = _commands(client, "zscore")
    for _ in range(50):
        send(app, "docs")
    assert _commands(client, "zscore") == asked > 0


def _commands(client: redis.Redis, name: str) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])


def test_with_no_worker_the_message_waits_and_a_time_out_says_so(
    app: Any, broker_url: str, client: redis.Redis, worker: Workers
) -> None:
    put(broker_url)
    sent = send(app, "dosc")
    with pytest.raises(CeleryTimeoutError, match=r"no worker is alive.*penstock worker"):
        sent.get(timeout=0.5)
    assert client.llen("penstock:penstock.dosc.interactive") == 1
    worker()
    with pytest.raises(EndpointNotFound, match=r"did you mean docs\?"):
        sent.get(timeout=20)


def test_a_time_out_beside_a_live_worker_is_celerys_own(
    app: Any, broker_url: str, worker: Workers, stand_in: Callable[..., StandIn]
) -> None:
    put(broker_url, stand_in(latency_ms=3000).url)
    worker()
    sent = send(app, "docs")
    with pytest.raises(CeleryTimeoutError, match=r"^The operation timed out\.$"):
        sent.get(timeout=0.5)
    assert len(sent.get(timeout=20)) == 1


@pytest.mark.parametrize("lanes", [(), ("-Q", "penstock.docs.interactive")], ids=["all lanes", "chosen lanes"])
def test_what_others_send_to_a_wrong_id_is_answered(
    other_app: Celery, broker_url: str, client: redis.Redis, worker: Workers, lanes: tuple[str, ...]
) -> None:
    put(broker_url)
    worker(2, args=lanes)
    sent = [send_from_elsewhere(other_app, "dosc") for _ in range(3)]
    for each in sent:
        with pytest.raises(Exception, match=r"did you mean docs\?") as raised:
            each.get(timeout=30)
        assert type(raised.value).__name__ == "EndpointNotFound"
    assert not client.exists("penstock:penstock.dosc.interactive")


def test_what_waits_for_an_endpoint_that_is_deleted_is_answered(
    other_app: Celery, broker_url: str, client: redis.Redis, worker: Workers
) -> None:
    put(broker_url)
    worker(args=("-Q", "penstock.others.interactive"))
    sent = send_from_elsewhere(other_app, "docs")
    Registry(connect(broker_url), load_settings()).delete("docs")
    with pytest.raises(Exception, match=r"not found \[docs\]"):
        sent.get(timeout=30)


def test_an_id_of_a_workers_file_is_known_to_all_while_that_worker_lives(
    app: Any, broker_url: str, client: redis.Redis, folder: Path, worker: Workers, stand_in: Callable[..., StandIn]
) -> None:
    file = folder / "endpoints.toml"
    settings = f'{{ url = "{stand_in().url}/v1", api_key = "k", model_id = "m" }}'
    file.write_text(
        f'[endpoints.filed]\ntask_type = "text_embedding"\nservice = "openai"\nservice_settings = {settings}\n'
    )
    worker(PENSTOCK_ENDPOINTS_FILE=str(file))
    wait_until(lambda: ask(client, "penstock:", ["filed"]).ids, "the file's endpoints are announced")
    worker(2)  # without the file: they leave its lanes alone
    for sent in [send(app, "filed") for _ in range(30)]:
        assert len(sent.get(timeout=20)) == 1
    with pytest.raises(EndpointNotFound, match=r"did you mean filed\?"):
        send(app, "fildd")


def test_a_command_says_that_an_endpoint_is_in_a_workers_file(client: redis.Redis) -> None:
    announce(client, "penstock:", ["filed"])
    argv = [sys.executable, "-m", "penstock.cli.main", "embed"]
    run = subprocess.run([*argv, "filed", "a text"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "[filed] is in the endpoints file of a worker" in run.stderr
    run = subprocess.run([*argv, "fildd", "a text"], capture_output=True, text=True, timeout=60, check=False)
    assert "Inference endpoint not found [fildd]" in run.stderr


# The look for them ---------------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(client: redis.Redis) -> Iterator[Runtime]:
    made = Runtime()
    yield made
    made.close()


def looked(runtime: Runtime, valkey: ValkeyServer, selection: Selection | None = None) -> list[str]:
    """The queues that one look finds."""
    chosen = selection or Selection("penstock:", ["penstock.none.bulk"])
    before = set(chosen.only() or ())

    async def look() -> None:
        async with connect_async(valkey.url) as client:
            await UnknownQueues(runtime, client, chosen).look()

    asyncio.run(look())
    return sorted(set(chosen.only() or ()) - before)


def test_only_lists_of_lanes_whose_endpoint_nobody_has_are_found(
    runtime: Runtime, valkey: ValkeyServer, client: redis.Redis, broker_url: str
) -> None:
    put(broker_url)
    announce(client, "penstock:", ["filed"])
    lists = [
        "penstock:penstock.docs.bulk", "penstock:penstock.filed.bulk", "penstock:penstock.chunk", "penstock:penstock",
        "penstock:other.x.bulk", "other:penstock.x.bulk", "penstock.x.bulk", "celery", "penstock:penstock.x.other",
        "penstock:penstock.wrong.bulk", "penstock:penstock.also.wrong.interactive",
    ]  # fmt: skip
    for name in lists:
        client.rpush(name, b"a message")
    client.set("penstock:penstock.text.bulk", "no list")
    # This process has not seen ``docs`` yet: the registry itself says that it is there.
    assert runtime.endpoints.cached("docs") is None
    assert looked(runtime, valkey) == ["penstock.also.wrong.interactive", "penstock.wrong.bulk"]
    assert {name for name in lists if client.llen(name) != 1} == set()
    client.delete(*lists)


def test_one_worker_looks_for_all(runtime: Runtime, valkey: ValkeyServer, client: redis.Redis) -> None:
    client.rpush("penstock:penstock.wrong.bulk", b"a message")
    assert looked(runtime, valkey) == ["penstock.wrong.bulk"]
    assert looked(runtime, valkey) == []
    client.delete("penstock:penstock.wrong.bulk")


def test_nothing_is_found_while_the_registry_cannot_be_read(
    runtime: Runtime, valkey: ValkeyServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.rpush("penstock:penstock.wrong.bulk", b"a message")
    away: Any = SimpleNamespace(register_script=lambda text: _raise)
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "client", away)
        with pytest.raises(redis.exceptions.ConnectionError):
            looked(runtime, valkey)
    client.delete("penstock:penstock.wrong.bulk")


def _raise(**_: Any) -> None:
    raise redis.exceptions.ConnectionError("away")


def test_a_worker_told_its_lanes_leaves_the_excluded_ones_and_lists_only_its_own() -> None:
    selection = Selection("penstock:", ["penstock.docs.bulk"], ["penstock.never.bulk"])
    selection.adopt(["penstock.wrong.bulk", "penstock.never.bulk"])
    assert selection.only() == ["penstock.docs.bulk", "penstock.docs.operations", "penstock.wrong.bulk"]
    assert selection.known([]) == ["penstock.docs.bulk", "penstock.docs.operations"]
    selection.pass_over(["penstock.filed.bulk"])
    assert selection.excluded == {"penstock.filed.bulk", "penstock.never.bulk"}
    selection.adopt([])
    assert selection.only() == selection.known([])


# Announcements -------------------------------------------------------------------------------------------------------


def test_an_announcement_holds_for_a_while_by_the_servers_clock(client: redis.Redis) -> None:
    def known(at_ms: float) -> Any:
        keys = [announced_key("penstock:"), "penstock:endpoints"]
        return script(client, "directory/known")(keys=keys, args=[HOLDS_S * 1000, "a", "b"], clock_ms=at_ms)

    def announced(at_ms: float, *ids: str) -> None:
        script(client, "directory/announce")(
            keys=[announced_key("penstock:")], args=[HOLDS_S * 1000, *ids], clock_ms=at_ms
        )

    at = 1_000_000.0
    assert known(at) == [0, 0, 0]
    announced(at, "a")
    assert known(at + 1) == [1, 1, 0]
    announced(at + 15_000, "b")  # the worker with ``a`` is no more
    assert known(at + 15_001) == [1, 1, 1]
    assert known(at + 21_000) == [1, 0, 1]
    assert known(at + 36_000) == [0, 0, 0]
    announced(at + 60_000)
    assert client.zrange(announced_key("penstock:"), 0, -1) == [b""]
    # Set back, the clock shows announcements of a time to come: they say nothing, and the next one drops them.
    assert known(at) == [0, 0, 0]
    announced(at, "a")
    assert known(at + 1) == [1, 1, 0]
    assert client.pttl(announced_key("penstock:")) > 0
