"""A worker starts on the Celery that it was tested with and on no other; who sends may have any from 5.4."""

from __future__ import annotations

import subprocess
import sys

import celery
import kombu
import pytest

from penstock.config.errors import ConfigurationError
from penstock.workers.versions import TESTED, check_versions

WORKER = "import sys; sys.argv = ['penstock', 'worker', '--processes', '1']; from penstock.cli.main import main; main()"
OWN_WORKER = """
import sys
sys.argv = ["celery", "-A", "penstock.workers.app", "worker"]
from celery.__main__ import main
main()
"""


def test_the_installed_versions_are_tested_ones() -> None:
    check_versions()


@pytest.mark.parametrize(("module", "version"), [(celery, "5.8.0"), (celery, "5.6.3"), (kombu, "5.8.0rc1")])
def test_another_minor_version_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, module: object, version: str
) -> None:
    monkeypatch.setattr(module, "__version__", version)
    with pytest.raises(ConfigurationError) as caught:
        check_versions()
    assert version in str(caught.value)
    assert all(tested in str(caught.value) for each in TESTED.values() for tested in each)


@pytest.mark.parametrize("start", [WORKER, OWN_WORKER], ids=["penstock", "celery"])
def test_a_worker_ends_at_once_with_a_sentence(broker_url: str, home: object, start: str) -> None:
    code = f"import celery; celery.__version__ = '5.8.1'\n{start}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "celery 5.8.1" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
