"""``penstock lanes`` and ``penstock lane``: what an operator sees and does, without any worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from penstock.cli.lanes import read_all
from penstock.config.endpoints.registry import Registry
from penstock.config.names import dead_messages_key, flight_key, holder_key, lane_key, used_key, work_key
from penstock.config.settings import load_settings
from penstock.workers.lanes.constants import FORMAT
from penstock.workers.lanes.limiter import change_lane
from penstock.workers.lanes.status import read_lane
from support.processes import Child
from support.valkey import ValkeyServer


class Operator:
    """An operator's look at the lanes of one broker."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.settings = client, load_settings()
        self.registry = Registry(client, self.settings)

    def put(self, inference_id: str, **settings: Any) -> str:
        body = {"service": "openai", "service_settings": {"api_key": "sk-x", "model_id": inference_id, **settings}}
        return self.registry.put("text_embedding", inference_id, body).quota

    def lane(self, quota: str, **fields: Any) -> None:
        values: dict[Any, Any] = {"format": FORMAT, **fields}
        self.client.hset(lane_key(self.settings.key_prefix, quota), mapping=values)

    def used(self, quota: str, **by_age: tuple[int, int, int]) -> None:
        """Have used (requests, tokens, refusals) so many seconds ago: ``used(q, s5=(1, 10, 0))``."""
        now = self.client.time()[0]
        for name, counts in by_age.items():
            second = now - int(name[1:])
            row = " ".join(map(str, (second, *counts, 0, 0)))
            self.client.hset(used_key(self.settings.key_prefix, quota), str(second % 64), row)
            self.client.expire(used_key(self.settings.key_prefix, quota), 120)

    def row(self, inference_id: str) -> dict[str, Any]:
        (row,) = read_all(self.client, self.settings, [self.registry.get(inference_id)])
        return row


@pytest.fixture
def operator(valkey: ValkeyServer, broker_url: str, home: Path) -> Iterator[Operator]:
    with valkey.client() as client:
        yield Operator(client)


def penstock(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "penstock.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_a_fresh_lane_is_open_with_its_configured_limits(operator: Operator) -> None:
    operator.put("docs", rate_limit={"requests_per_minute": 600, "tokens_per_minute": 1_000_000})
    row = operator.row("docs")
    assert (row["state"], row["why"], row["cool_s"]) == ("open", "", 0.0)
    assert (row["requests"], row["tokens"], row["rate_limited"]) == (0, 0, 0)
    assert (row["requests_limit"], row["tokens_limit"]) == (600, 1_000_000)
    assert row["waiting"] == row["in_flight"] == {"interactive": 0, "bulk": 0}


def test_no_limit_is_none(operator: Operator) -> None:
    operator.put("free", rate_limit={"requests_per_minute": None})
    assert (operator.row("free")["requests_limit"], operator.row("free")["tokens_limit"]) == (None, None)


@pytest.mark.parametrize(
    ("learnt", "limit"),
    [
        ({"requests.limit": 300}, 300),
        ({"requests.header_limit": 200}, 200),
        ({"requests.limit": 300, "requests.header_limit": 200}, 200),
        ({"requests.limit": 900}, 600),
        ({"requests.limit": 0}, 600),
    ],
)
def test_a_learnt_limit_is_shown_when_it_is_the_lower_one(
    operator: Operator, learnt: dict[str, float], limit: float
) -> None:
    quota = operator.put("docs", rate_limit={"requests_per_minute": 600})
    operator.lane(quota, header_at=time.time() * 1000, **learnt)
    assert operator.row("docs")["requests_limit"] == limit


def test_what_a_header_said_long_ago_is_no_limit_any_more(operator: Operator) -> None:
    quota = operator.put("docs", rate_limit={"requests_per_minute": 600})
    operator.lane(quota, **{"requests.header_limit": 200, "header_at": (time.time() - 301) * 1000})
    assert operator.row("docs")["requests_limit"] == 600


def test_the_last_minute_is_summed_and_nothing_older(operator: Operator) -> None:
    quota = operator.put("docs")
    operator.used(quota, s1=(10, 100, 1), s30=(5, 50, 2), s55=(1, 10, 0), s62=(1000, 10_000, 1000))
    row = operator.row("docs")
    assert (row["requests"], row["tokens"], row["rate_limited"]) == (16, 160, 3)


def test_cooling_tells_for_how_long(operator: Operator) -> None:
    quota = operator.put("docs")
    operator.lane(quota, cooldown_until=time.time() * 1000 + 3_600_000)
    row = operator.row("docs")
    assert row["state"] == "cooling"
    assert 0 < row["cool_s"] <= 3600
    assert row["why"].endswith(" s left")


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("paused", {"paused": "1", "pause_why": "no credit. Next: add credit"}),
        ("parked", {"state": "parked", "why": "no credit. Next: add credit"}),
        ("probing", {"state": "probing", "why": "no credit. Next: add credit"}),
    ],
)
def test_a_state_is_shown_with_its_reason_even_while_it_cools(
    operator: Operator, state: str, fields: dict[str, str]
) -> None:
    quota = operator.put("docs")
    operator.lane(quota, cooldown_until=time.time() * 1000 + 30_000, **fields)
    row = operator.row("docs")
    assert (row["state"], row["why"]) == (state, "no credit. Next: add credit")


def test_a_pause_hides_the_state_under_it_and_both_reasons_are_kept(operator: Operator) -> None:
    quota = operator.put("docs")
    prefix = operator.settings.key_prefix
    change_lane(operator.client, prefix, quota, "parked", "no credit")
    change_lane(operator.client, prefix, quota, "paused", "invoice in dispute")
    row = operator.row("docs")
    assert (row["state"], row["why"], row["paused"], row["pause_why"]) == (
        "paused", "invoice in dispute", True, "invoice in dispute",
    )  # fmt: skip
    assert (row["underlying"], row["underlying_why"]) == ("parked", "no credit")
    change_lane(operator.client, prefix, quota, "resume")
    row = operator.row("docs")
    assert (row["state"], row["why"], row["paused"]) == ("probing", "no credit", False)


def test_json_keeps_the_fields_that_programs_read(operator: Operator) -> None:
    operator.put("docs")
    assert set(operator.row("docs")) >= {
        "inference_id", "quota", "state", "why", "cool_s", "requests", "tokens", "rate_limited", "requests_limit",
        "tokens_limit", "operations", "waiting", "in_flight",
    }  # fmt: skip


def test_a_lane_of_a_newer_version_is_refused_by_name(operator: Operator) -> None:
    quota = operator.put("docs")
    operator.lane(quota, format=FORMAT + 1)
    shown = penstock("lanes")
    assert shown.returncode == 2
    assert f"lane {quota} cannot be read: it is of format {FORMAT + 1}" in " ".join(shown.stderr.split())
    assert "Traceback" not in shown.stderr


def test_a_queue_whose_key_is_no_list_hides_no_lane(operator: Operator) -> None:
    operator.put("docs")
    operator.put("other")
    prefix = operator.settings.key_prefix
    operator.client.set(f"{prefix}penstock.docs.bulk", "no list")
    operator.client.lpush(f"{prefix}penstock.other.bulk", "a")
    operator.client.lpush(f"{prefix}penstock.other.bulk:suspects", "b")
    assert operator.row("docs")["waiting"] == {"interactive": 0, "bulk": 0}
    assert operator.row("other")["waiting"] == {"interactive": 0, "bulk": 2}


def test_a_damaged_endpoint_is_listed_as_damaged(operator: Operator) -> None:
    operator.put("docs")
    operator.client.hset(f"{operator.settings.key_prefix}endpoints", "bad", "{cut")
    shown = penstock("endpoint", "list")
    assert shown.returncode == 0
    assert "docs" in shown.stdout
    assert "the record of endpoint [bad] in the broker is damaged" in " ".join((shown.stdout + shown.stderr).split())
    listed = json.loads(penstock("endpoint", "list", "--json").stdout)
    assert [each["inference_id"] for each in listed["endpoints"]] == ["docs"]
    assert [each["inference_id"] for each in listed["unreadable"]] == ["bad"]
    assert operator.row("docs")["state"] == "open"


def test_messages_waiting_and_in_flight_are_counted_by_class(operator: Operator) -> None:
    operator.put("docs")
    prefix = operator.settings.key_prefix
    operator.client.lpush(f"{prefix}penstock.docs.bulk", "a", "b", "c")
    operator.client.lpush(f"{prefix}penstock.docs.interactive", "d")
    held: dict[Any, Any] = {"t1": "penstock.docs.bulk", "t2": "penstock.docs.bulk", "t3": "penstock.other.bulk"}
    operator.client.hset(holder_key(prefix), mapping=held)
    row = operator.row("docs")
    assert row["waiting"] == {"interactive": 1, "bulk": 3}
    assert row["in_flight"] == {"interactive": 0, "bulk": 2}


def test_operations_in_flight_leave_out_those_that_lapsed(operator: Operator) -> None:
    quota = operator.put("docs")
    now = time.time() * 1000
    leases = {"alive": now + 60_000, "lapsed": now - 1}
    operator.client.zadd(flight_key(operator.settings.key_prefix, quota), leases)
    assert read_lane(operator.client, operator.settings, quota).operations == 1


def test_endpoints_of_one_quota_show_one_lane(operator: Operator) -> None:
    quota = operator.put("small", model_id="m", dimensions=64)
    assert operator.put("large", model_id="m", dimensions=256) == quota
    change_lane(operator.client, operator.settings.key_prefix, quota, "paused", "both")
    assert [operator.row(name)["why"] for name in ("small", "large")] == ["both", "both"]


# The commands ------------------------------------------------------------------------------------------------------


def test_pause_and_resume_are_seen_by_lanes_at_once(operator: Operator) -> None:
    operator.put("docs")
    paused = penstock("lane", "pause", "docs", "--why", "invoice in dispute")
    assert (paused.returncode, paused.stdout) == (0, "lane docs is paused: invoice in dispute\n")
    shown = penstock("lanes")
    assert shown.returncode == 0
    assert "paused" in shown.stdout
    assert "invoice in dispute" in shown.stdout
    resumed = penstock("lane", "resume", "docs", "--json")
    assert resumed.returncode == 0
    assert json.loads(resumed.stdout)["state"] == "open"


def test_an_unknown_lane_is_named_with_what_to_do(operator: Operator) -> None:
    operator.put("docs-embeddings")
    wrong = penstock("lane", "pause", "docs-embedings")
    assert wrong.returncode == 2
    assert "docs-embeddings" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_no_endpoint_yet_is_no_error(operator: Operator) -> None:
    shown = penstock("lanes")
    assert shown.returncode == 0
    assert "no endpoint" in shown.stdout + shown.stderr
    assert json.loads(penstock("lanes", "--json").stdout) == {"lanes": []}


@pytest.mark.parametrize("terminal", [{}, {"FORCE_COLOR": "1", "COLUMNS": "160"}])
def test_watching_goes_on_until_it_is_interrupted(operator: Operator, folder: Path, terminal: dict[str, str]) -> None:
    operator.put("docs")
    argv = [sys.executable, "-m", "penstock.cli.main", "lanes", "--watch", "--interval", "0.1"]
    child = Child(argv, folder / "watch.log", env=terminal)
    try:
        child.wait_for("docs", count=2)
        child.send(signal.SIGINT)
        assert child.wait(10) == 130
        assert "Traceback" not in child.log
    finally:
        child.kill_all()


# Dead messages -----------------------------------------------------------------------------------------------------


def set_apart(
    operator: Operator, queue: str, *messages: bytes, why: str = "its body cannot be decoded (DecodeError)"
) -> None:
    """Have messages set apart, as a worker does."""
    for message in messages:
        entry = {"queue": queue, "why": why, "at": 1_750_000_000.0, "message": message.decode("latin-1")}
        operator.client.lpush(dead_messages_key(operator.settings.key_prefix), json.dumps(entry))
        operator.client.expire(dead_messages_key(operator.settings.key_prefix), 60)


READABLE = b'{"headers": {"id": "task-1"}, "properties": {}, "body": "a text that nobody may see"}'


def test_dead_messages_are_listed_without_their_contents(operator: Operator) -> None:
    operator.put("docs")
    set_apart(operator, "penstock.docs.bulk", READABLE, b"\xff\xfe")
    set_apart(operator, "penstock.docs.interactive", b"[]")
    set_apart(operator, "penstock.docs.operations", b"7")
    set_apart(operator, "penstock.other.bulk", b"{}")
    shown = penstock("lane", "dead", "docs", "--json")
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)["dead"]
    assert [(row["queue"], row["task_id"], row["size"]) for row in rows] == [
        ("penstock.docs.operations", None, 1),
        ("penstock.docs.interactive", None, 2),
        ("penstock.docs.bulk", None, 2),
        ("penstock.docs.bulk", "task-1", len(READABLE)),
    ]
    assert {(row["at"], row["why"]) for row in rows} == {
        ("2025-06-15T15:06:40+00:00", "its body cannot be decoded (DecodeError)")
    }
    table = penstock("lane", "dead", "docs").stdout
    assert "task-1" in table
    assert "DecodeError" in table
    assert "nobody may see" not in table + shown.stdout


def test_dead_messages_are_put_back_as_they_were_in_their_order(operator: Operator) -> None:
    operator.put("docs")
    set_apart(operator, "penstock.docs.bulk", READABLE, b"\xff\xfe")
    set_apart(operator, "penstock.other.bulk", b"{}")
    put_back = penstock("lane", "dead", "docs", "--requeue")
    assert (put_back.returncode, put_back.stdout) == (0, "2 of 2 dead messages put back\n")
    prefix = operator.settings.key_prefix
    queue = operator.client.lrange(f"{prefix}penstock.docs.bulk", 0, -1)
    assert list(reversed(queue)) == [READABLE, b"\xff\xfe"]
    assert operator.client.zrange(work_key(prefix, "bulk"), 0, -1) == [b"penstock.docs.bulk"], "workers are told"
    assert operator.client.llen(dead_messages_key(prefix)) == 1, "those of others stay"
    assert json.loads(penstock("lane", "dead", "docs", "--json").stdout) == {"dead": []}


def test_dead_messages_are_dropped(operator: Operator) -> None:
    operator.put("docs")
    set_apart(operator, "penstock.docs.bulk", READABLE, READABLE)
    dropped = penstock("lane", "dead", "docs", "--drop", "--json")
    assert json.loads(dropped.stdout)["dropped"] == 2
    assert not operator.client.exists(dead_messages_key(operator.settings.key_prefix), "penstock:penstock.docs.bulk")
    nothing = penstock("lane", "dead", "docs")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "no dead messages\n")


def test_dead_messages_of_a_deleted_endpoint_and_of_no_endpoint_are_still_seen(operator: Operator) -> None:
    set_apart(operator, "penstock.gone.bulk", READABLE)
    set_apart(operator, "penstock.chunk", READABLE)
    for name in ("gone", "penstock.chunk"):
        assert "task-1" in penstock("lane", "dead", name).stdout
    assert penstock("lane", "dead", "penstock").returncode == 0
    unknown = penstock("lane", "dead", "no-such-endpoint")
    assert unknown.returncode == 2
    assert "no-such-endpoint" in unknown.stderr


def test_dead_messages_are_not_put_back_and_dropped_at_once(operator: Operator) -> None:
    operator.put("docs")
    wrong = penstock("lane", "dead", "docs", "--drop", "--requeue")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_a_dead_message_whose_queue_is_no_list_stays(operator: Operator) -> None:
    operator.put("docs")
    set_apart(operator, "penstock.docs.bulk", READABLE)
    operator.client.set("penstock:penstock.docs.bulk", "not a list")
    assert penstock("lane", "dead", "docs", "--requeue").stdout == "0 of 1 dead messages put back\n"
    assert operator.client.llen(dead_messages_key(operator.settings.key_prefix)) == 1
