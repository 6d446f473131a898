"""Applications on older Celerys beside workers on ours, each in a fresh environment of its own.

``TEST_CELERY_VERSIONS=. pytest tests/acceptance/test_celery_versions.py``: what pip is to install beside each Celery,
this folder or a wheel. ``.ci/run`` does so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hosts import OURS, STOCK, WITH_OURS, Host, put_endpoints
from support.task_bench import SHORT_LEASES, Stage, open_bench, open_stage
from support.valkey import ValkeyServer

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL = os.environ.get("TEST_CELERY_VERSIONS", "")

pytestmark = [
    pytest.mark.celery_versions,
    pytest.mark.skipif(not INSTALL, reason="needs a package index: TEST_CELERY_VERSIONS=. runs it, as .ci/run does"),
]


@pytest.fixture(scope="module", params=["5.4", "5.5", "5.6"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a fresh environment with an older Celery and with ours installed beside it."""
    folder = tmp_path_factory.mktemp("celery") / request.param
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = [f"celery[redis]=={request.param}.*", str(Path(REPOSITORY, INSTALL))]
    subprocess.run([folder / "bin" / "pip", "install", "-q", *wanted], check=True, timeout=600)
    subprocess.run([folder / "bin" / "pip", "check"], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def stage(valkey_server: ValkeyServer) -> Iterator[Stage]:
    with open_stage(valkey_server, SHORT_LEASES, {"answer_tokens": 12}, dimensions=8) as found:
        found.start_worker("-c", "10")
        found.start_worker("-P", "prefork", "-c", "1", "-Q", "penstock.chunk")
        yield found


@pytest.mark.parametrize(("scheme", "expected"), [("", STOCK), (OURS, WITH_OURS)], ids=["stock", "ours"])
def test_an_app_calls_ours_and_its_own_finish_what_ours_begin(
    python: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, scheme: str, expected: dict[str, object]
) -> None:
    with open_bench(stage, monkeypatch) as bench:
        put_endpoints(bench, stage)
        host = Host(stage, python, scheme)
        try:
            found = host.run("versions", *expected)
        finally:
            host.stop()
    sender, _ = found.pop("versions")
    assert not sender.startswith("5.7")
    assert found == expected


@pytest.mark.parametrize("command", [["celery", "-A", "penstock.workers.app", "worker"], ["penstock", "worker"]])
def test_no_worker_of_ours_starts_there(python: str, stage: Stage, command: list[str]) -> None:
    argv = [str(Path(python).with_name(command[0])), *command[1:]]
    env = {**os.environ, **stage.env}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == 2, done.stderr
    assert "was tested with celery 5.7" in " ".join(done.stderr.split())
