"""Lanes that another version of Penstock has written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import ConfigurationError, FormatTooNew
from penstock.config.names import endpoint_quotas_key, lane_key, queue_key, queue_name
from penstock.config.settings import load_settings
from penstock.workers.lanes.constants import FORMAT
from penstock.workers.lanes.limiter import Limiter, UsageReport, change_lane, unpark_changed
from penstock.workers.lanes.scripts import by_name, run_blocking
from penstock.workers.lanes.status import read_lane
from support.taking import take
from support.valkey import ValkeyServer

PREFIX = "format:"
T0 = 1_700_000_000_000.0

#: A lane as format 1 had it: cooling, a learnt limit of requests, one of tokens that is rough.
OLD: dict[Any, Any] = {
    "state": "", "why": "", "by": "", "version": "0", "since": "5.0000", "probe": "0.0000",
    "cool": f"{T0 + 3000:.4f}", "tr": f"{T0 + 40:.4f}", "tt": f"{T0 + 50:.4f}", "seq": "7.0000", "owed": "123.0000",
    "er": "590.0000", "br": "580.0000", "cr": "591.0000", "kr": f"{T0 - 9000:.4f}", "pr": "24.0000",
    "et": "60000.0000", "bt": "60000.0000", "ct": "60000.0000", "kt": f"{T0:.4f}", "pt": "0.0000",
    "ar": "11.0000", "wr": "12.0000", "nr": "13.0000", "at": "14.0000", "wt": "15.0000", "nt": "16.0000",
    "saidr": "595.0000", "saidt": "70000.0000", "saidat": f"{T0:.4f}", "rough": "t", "nudges": "2.0000",
    "hit": f"{T0:.4f}", "fresh": "3.0000", "streak": "1.0000", "closed": "4.0000", "fails": "6.0000",
    "first": "1.0000", "last": "2.0000", "was": "3.0000", "mean": "100.0000",
}  # fmt: skip

NEW = {
    "format": str(FORMAT), "state": "", "why": "", "parked_by": "", "parked_version": "0", "since": "5.0000",
    "probe_until": "0.0000", "cooldown_until": OLD["cool"], "requests.next_at": OLD["tr"],
    "tokens.next_at": OLD["tt"], "cooldown_number": "7.0000", "bulk_credit_ms": "123.0000",
    "requests.limit": "590.0000", "requests.start": "580.0000", "requests.ceiling": "591.0000",
    "requests.cut_at": OLD["kr"], "requests.plateau_s": "24.0000", "tokens.limit": "60000.0000",
    "tokens.start": "60000.0000", "tokens.ceiling": "60000.0000", "tokens.cut_at": OLD["kt"],
    "tokens.plateau_s": "0.0000", "requests.accepted": "11.0000", "requests.accepted_before": "12.0000",
    "requests.reserved": "13.0000", "tokens.accepted": "14.0000", "tokens.accepted_before": "15.0000",
    "tokens.reserved": "16.0000", "requests.header_limit": "595.0000", "tokens.header_limit": "70000.0000",
    "header_at": OLD["saidat"], "rough": "tokens", "small_steps": "2.0000", "refused_at": OLD["hit"],
    "accepted_since_refusal": "3.0000", "refusals_in_a_row": "1.0000", "closed_at": "4.0000",
    "failures_in_a_row": "6.0000", "awake_since": "1.0000", "measured_from": "2.0000", "measured_before": "3.0000",
    "mean_tokens": "100.0000",
}  # fmt: skip


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as made:
        yield made


def raw(client: redis.Redis, quota: str = "q") -> dict[str, str]:
    found: Any = client.hgetall(lane_key(PREFIX, quota))
    return {key.decode(): value.decode() for key, value in found.items()}


def look(client: redis.Redis) -> dict[str, str]:
    return by_name(run_blocking(client, PREFIX, "q", "look", {}, T0))


def test_a_lane_of_the_version_before_keeps_all_that_it_knew_by_todays_names(client: redis.Redis) -> None:
    client.hset(lane_key(PREFIX, "q"), mapping=OLD)
    seen = look(client)
    assert (seen["state"], seen["cooling_ms"], seen["requests_limit"]) == ("cooling", "3000", "590")
    assert raw(client) == NEW
    assert 29 * 86_400 < client.ttl(lane_key(PREFIX, "q")) <= 30 * 86_400  # type: ignore[operator]


def test_it_is_converted_once_whoever_comes_first(client: redis.Redis, valkey: ValkeyServer) -> None:
    client.hset(lane_key(PREFIX, "q"), mapping={**OLD, "cool": time.time() * 1000 + 60_000})
    client.hset(endpoint_quotas_key(PREFIX), "docs", "q")
    client.lpush(queue_key(PREFIX, queue_name("docs")), '{"properties": {"delivery_tag": "t"}}')
    seen = take(client, PREFIX, only=[queue_name("docs")])
    assert (seen.taken, seen.wait_ms) == ([], 1000), "it is looked at again each second, and cools"
    before = raw(client)
    assert before["format"] == str(FORMAT)
    look(client)
    assert raw(client) == before


@pytest.mark.parametrize("state", ["parked", "probing"])
def test_a_parked_lane_stays_parked_with_its_reason(client: redis.Redis, state: str) -> None:
    client.hset(lane_key(PREFIX, "q"), mapping={"state": state, "why": "no credit", "by": "docs", "version": "3"})
    seen = look(client)
    assert (seen["state"], seen["why"], seen["paused"]) == (state, "no credit", "0")
    changed = Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, quota="q", version=4)
    unpark_changed(client, PREFIX, changed)
    assert look(client)["state"] == "probing"


def test_a_paused_lane_stays_paused_and_opens_when_it_is_resumed(client: redis.Redis) -> None:
    client.hset(lane_key(PREFIX, "q"), mapping={"state": "paused", "why": "by hand", "by": "", "version": "0"})
    seen = look(client)
    assert (seen["state"], seen["why"], seen["paused"], seen["pause_why"]) == ("open", "", "1", "by hand")
    change_lane(client, PREFIX, "q", "resume")
    assert look(client)["paused"] == "0"


async def test_a_newer_lane_is_refused_by_name_and_left_as_it_is(client: redis.Redis, valkey: ValkeyServer) -> None:
    client.hset(lane_key(PREFIX, "q"), mapping={"format": FORMAT + 1, "state": "who knows"})
    asyncio_client = redis.asyncio.Redis(port=valkey.port)
    limiter = Limiter(asyncio_client, PREFIX)
    words = rf"^lane q cannot be read: it is of format {FORMAT + 1}, and .* up to {FORMAT}\. .*: upgrade this side$"
    limit = RateLimit(600)
    for call in (
        limiter.reserve("q", limit, 1),
        limiter.report("q", UsageReport(ok=1)),
        limiter.refuse("q", 0, 1.0, "", limit),
        limiter.park("q", "no credit", "docs", 1),
        limiter.release("q", "lease"),
    ):
        with pytest.raises(FormatTooNew, match=words):
            await call
    await asyncio_client.aclose()
    with pytest.raises(ConfigurationError, match=words):
        change_lane(client, PREFIX, "q", "resume")
    unpark_changed(client, PREFIX, Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, quota="q"))
    assert raw(client) == {"format": str(FORMAT + 1), "state": "who knows"}


def test_status_refuses_it_too(client: redis.Redis, home: Any) -> None:
    settings = load_settings()
    client.hset(lane_key(settings.key_prefix, "q"), mapping={"format": FORMAT + 1})
    with pytest.raises(FormatTooNew):
        read_lane(client, settings, "q")
