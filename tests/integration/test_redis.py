"""Clients of a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.config.errors import BrokerUnavailable
from penstock.config.redis import connect, connect_async, reachable


def test_a_refused_password_is_named(valkey: Any) -> None:
    url = valkey.url.replace("://", "://nobody:pw@")
    with connect(url) as client, pytest.raises(BrokerUnavailable, match="refuses the user or password") as caught:
        reachable(client, url)
    assert "pw" not in str(caught.value)


def test_both_clients_reach_a_real_server_by_port_and_by_socket(valkey: Any) -> None:
    for url in (valkey.url, valkey.socket_url):
        with connect(url, decode=True) as client:
            reachable(client, url)
            client.set("k", "v", ex=60)
            assert client.get("k") == "v"

        async def read(url: str = url) -> Any:
            async with connect_async(url) as client:
                return await client.get("k")

        assert asyncio.run(read()) == b"v"
