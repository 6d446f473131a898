"""The runtime of a process: one place that owns what is shared, and lets go of what was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.settings import Settings, load_settings
from penstock.tasks.request.auth import bearer_tokens
from penstock.tasks.request.http import http_client
from penstock.workers import endpoint_cache
from penstock.workers.lanes.lanes import Lanes
from penstock.workers.runtime import Runtime, close_runtime, runtime

BODY: dict[str, Any] = {"service": "openai", "service_settings": {"api_key": "a-key-of-no-worth", "model_id": "m"}}


@pytest.fixture(autouse=True)
def always_look(home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_cache, "FRESH_S", 0.0)


@pytest.fixture
def made() -> Iterator[Runtime]:
    found = Runtime()
    yield found
    found.close()


def put(of: Runtime, inference_id: str, **more: Any) -> Any:
    body = {**BODY, "service_settings": {**BODY["service_settings"], "model_id": inference_id, **more}}
    return Registry(of.client, of.settings).put("text_embedding", inference_id, body)


def test_a_process_has_one_until_it_is_closed() -> None:
    first = runtime()
    assert runtime() is first
    close_runtime()
    assert runtime() is not first


def test_two_live_side_by_side_each_with_its_own_settings(made: Runtime) -> None:
    other = Runtime(Settings(key_prefix="other:", broker_url=made.settings.broker_url, home=made.settings.home))
    put(made, "docs")
    assert made.endpoints.find("docs") is not None
    assert other.endpoints.find("docs") is None
    assert made.quotas is not other.quotas
    other.close()


async def test_what_belongs_to_a_loop_is_made_once_on_it(made: Runtime) -> None:
    assert http_client(made) is http_client(made)
    assert made.lanes() is made.lanes()
    assert made.async_client() is made.async_client()
    found = await asyncio.to_thread(lambda: asyncio.run(_lanes_of(made)))
    assert found is not made.lanes()
    await made.lanes().aclose()
    await http_client(made).aclose()
    await made.async_client().aclose()


async def _lanes_of(of: Runtime) -> Lanes:
    return of.lanes()


async def test_what_was_learnt_of_a_deleted_endpoint_is_dropped(made: Runtime) -> None:
    docs, kept = put(made, "docs"), put(made, "kept")
    made.endpoints.refresh()
    lanes = made.lanes()
    gone, stays = lanes.lane(docs), lanes.lane(kept)
    stats = made.quotas.of(docs.quota)
    Registry(made.client, made.settings).delete("docs")
    made.endpoints.refresh()
    await asyncio.sleep(0)
    assert lanes.lane(kept) is stays
    assert lanes.lane(docs) is not gone
    assert made.quotas.of(docs.quota) is not stats
    await lanes.aclose()
    await made.async_client().aclose()


async def test_tokens_of_a_changed_endpoint_are_dropped(made: Runtime) -> None:
    tokens = bearer_tokens(made)
    docs = put(made, "docs")
    made.endpoints.refresh()
    tokens._tokens[docs.inference_id, docs.version] = ("a token", float("inf"))
    put(made, "docs", max_inputs_per_request=7)
    made.endpoints.refresh()
    await asyncio.sleep(0)
    assert not tokens._tokens
    await http_client(made).aclose()


def test_the_settings_are_those_of_the_environment_when_it_is_made(made: Runtime) -> None:
    assert made.settings == load_settings()
