"""Which versions of Celery and kombu a worker of ours may run on: those that it was tested with.

Who only sends tasks has any Celery from 5.4. A worker hands messages to Celery's own consumer, and leans on what that
is made of (``tests/integration/test_celery_contract.py`` says on what), which a new minor version may change.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import celery
import kombu

from penstock.config.errors import ConfigurationError

#: Minor versions.
TESTED: Mapping[str, frozenset[str]] = {"celery": frozenset({"5.7"}), "kombu": frozenset({"5.7"})}


def check_versions() -> None:
    """Check that a worker may start.

    Raises:
        ConfigurationError: it was not tested with this Celery or kombu.
    """
    found = {"celery": str(celery.__version__), "kombu": str(kombu.__version__)}
    untested = [name for name, version in found.items() if _minor(version) not in TESTED[name]]
    if untested:
        raise ConfigurationError(
            f"a Penstock worker does not start on {_named(found)}: it was tested with "
            f"{_named({name: ', '.join(sorted(versions)) for name, versions in TESTED.items()})}. Give it an "
            f"environment of its own with those (`pip install {' '.join(_requirement(name) for name in found)}`); "
            "applications that send it tasks may keep theirs"
        )


def exit_if_untested() -> None:
    """End the process, with the reason and exit code 2, where a worker may not start."""
    try:
        check_versions()
    except ConfigurationError as exc:
        print(f"error: {exc}", file=sys.stderr)
        raise SystemExit(exc.exit_code) from exc


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _named(versions: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def _requirement(name: str) -> str:
    return f"'{name}=={max(TESTED[name])}.*'"
