"""The watch over every test bites: keys left for ever in Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config.names import ENDPOINTS, PROGRESS
from support import key_leaks
from support.valkey import ValkeyServer


def test_a_key_that_should_expire_and_does_not_is_told_once(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_leaks, "PATIENCE_S", 0.0)
    leaked = PROGRESS.name("penstock:", task="a-task")
    with valkey.client() as client:
        client.hset(leaked, "left", "for ever")
        client.hset(PROGRESS.name("penstock:", task="another"), "left", "for a while")
        client.expire(PROGRESS.name("penstock:", task="another"), 600)
        client.hset(ENDPOINTS.name("penstock:"), "docs", "{}")
        client.set("penstock:nobody-named-this", 1)
        client.set("named-by-nobody", 1)
    told = [f"{name} (database 0)" for name in ("named-by-nobody", "penstock:nobody-named-this", leaked)]
    assert sorted(key_leaks.leaks_of(valkey.port)) == told
    assert key_leaks.leaks_of(valkey.port) == []


def test_a_server_that_a_test_stops_is_looked_at_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_leaks, "PATIENCE_S", 0.0)
    server = ValkeyServer(folder)
    with server.client() as client:
        client.set("named-by-nobody", 1)
    server.stop()
    assert [ValkeyServer.leaks.pop()] == ["named-by-nobody (database 0)"]
