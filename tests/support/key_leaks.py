"""Looks for what a test left behind in Redis: a key that nobody named, or one that should expire and does not.

``config/names.py`` says of each key whether it expires. ``tests/conftest.py`` asks after every test, of every server
that the test process has started, its own broker's included.
"""

from __future__ import annotations

import re
import time
from typing import Any

import redis

from penstock.config.names import find_key

#: Each test's keys begin with a prefix of its own or ours.
PREFIX = re.compile("[a-z-]+:")
#: Keys of the tests' own, and of ``support.pool_app``, which is a plain Celery app without a prefix.
OF_TESTS = re.compile(r"tests:.*|celery|unacked(_index|_mutex)?|_kombu\.binding.*|celery-task-meta-.*")
#: Some keys are given their expiry a moment after they are made.
PATIENCE_S = 10.0


def find_leaks(client: redis.Redis) -> list[str]:
    """Return the keys of one database that have no expiry and, by the table of names, should."""
    keys: Any = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
        lives: Any = pipe.execute()
    for_ever = (key.decode(errors="replace") for key, life in zip(keys, lives, strict=True) if life == -1)
    return sorted(key for key in for_ever if not _may_stay(key))


def _may_stay(key: str) -> bool:
    if OF_TESTS.fullmatch(key):
        return True
    prefix = PREFIX.match(key)
    entry = find_key(prefix.group(), key) if prefix else None
    return entry is not None and not entry.expires


def leaks_of(port: int) -> list[str]:
    """Return what stays leaked in any database of a server on loopback; it is deleted, so that it is told once."""
    end = time.monotonic() + PATIENCE_S
    try:
        with redis.Redis(port=port) as first:
            databases: Any = first.info("keyspace")
        found = []
        for name in databases:
            number = int(name.removeprefix("db"))
            with redis.Redis(port=port, db=number) as client:
                while (leaks := find_leaks(client)) and time.monotonic() < end:
                    time.sleep(0.1)
                for key in leaks:
                    client.delete(key)
                found += [f"{key} (database {number})" for key in leaks]
        return found
    except redis.ConnectionError:  # a test had it killed
        return []
