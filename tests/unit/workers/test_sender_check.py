"""When a process refuses to send: only what nobody can do, for certain; and how seldom it asks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from penstock.config.errors import EndpointNotFound
from penstock.workers.app import endpoint_of
from penstock.workers.directory import check
from penstock.workers.directory.announcements import KnownEndpoints
from penstock.workers.directory.check import AWAY_S, KNOWN_S, UNSURE_S, SenderCheck

DOWN = redis.exceptions.ConnectionError("away")
DENIED = redis.exceptions.NoPermissionError("not you")


class Directory:
    """Stands in for the registry and the workers' announcements, and counts who asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: set[str] = set()
        self.worker_alive = True
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(check, "ask", self._ask)
        monkeypatch.setattr(check, "all_ids", lambda client, prefix: sorted(self.ids))

    def _ask(self, client: Any, prefix: str, ids: Sequence[str]) -> KnownEndpoints:
        self.asked += ids
        if self.error is not None:
            raise self.error
        return KnownEndpoints(self.worker_alive, frozenset(self.ids & set(ids)))


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    return Directory(monkeypatch)


@pytest.fixture
def sender() -> SenderCheck:
    return SenderCheck("redis://127.0.0.1:1/0", "penstock:")


RULE = [
    # the registry, a worker alive, known: refused
    (None, True, False, True),
    (None, True, True, False),
    (None, False, False, False),
    (None, False, True, False),
    (DOWN, True, False, False),
    (DOWN, False, False, False),
    (DENIED, True, False, False),
    (TimeoutError("slow"), True, False, False),
]


@pytest.mark.parametrize(("error", "alive", "known", "refused"), RULE)
def test_only_what_nobody_knows_for_certain_is_refused(
    directory: Directory, sender: SenderCheck, error: Exception | None, alive: bool, known: bool, refused: bool
) -> None:
    directory.error, directory.worker_alive, directory.ids = error, alive, {"docs"}
    inference_id = "docs" if known else "dosc"
    if not refused:
        sender.refuse_unknown(inference_id)
        return
    with pytest.raises(EndpointNotFound, match=r"\[dosc\]: did you mean docs\?"):
        sender.refuse_unknown(inference_id)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [({"ids": {"docs"}}, KNOWN_S), ({"worker_alive": False}, UNSURE_S), ({"error": DOWN}, AWAY_S)],
    ids=["known", "nobody could tell", "the registry is away"],
)
def test_an_answer_is_remembered_and_costs_no_further_question(
    directory: Directory, sender: SenderCheck, change: dict[str, Any], seconds: float
) -> None:
    for name, value in change.items():
        setattr(directory, name, value)
    for _ in range(100):
        sender.refuse_unknown("docs")
        directory.now += seconds / 101
    assert directory.asked == ["docs"]
    directory.now += seconds
    sender.refuse_unknown("docs")
    assert directory.asked == ["docs", "docs"]


def test_a_refusal_is_not_remembered_for_the_endpoint_may_be_put_now(directory: Directory, sender: SenderCheck) -> None:
    with pytest.raises(EndpointNotFound):
        sender.refuse_unknown("docs")
    directory.ids.add("docs")
    sender.refuse_unknown("docs")


def test_what_is_remembered_of_ids_is_bounded(
    directory: Directory, sender: SenderCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_MOST_IDS", 10)
    directory.worker_alive = False
    for number in range(50):
        sender.refuse_unknown(f"id-{number}")
    assert len(sender._passed_until) <= 10


@pytest.mark.parametrize(
    ("args", "kwargs", "found"),
    [
        ((["a"], "docs"), {}, "docs"),
        ((["a"],), {"endpoint_id": "docs"}, "docs"),
        ((["a"],), {}, None),
        ((["a"], 7), {}, None),
        (None, None, None),
        ((["a"], ""), {}, None),
    ],
)
def test_the_endpoint_is_found_among_the_arguments(args: Any, kwargs: Any, found: str | None) -> None:
    assert endpoint_of(args, kwargs) == found
