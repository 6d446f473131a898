"""The demo's environment: a home of its own, whatever variables are set; a broker, a stand-in endpoint, workers.

All of it ends with the demo.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.config.endpoints.registry import Registry
from penstock.config.errors import PenstockError
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.workers.embedded.broker import Urls, await_end, broker

ENDPOINT = "demo"
PROCESSES = 2
REQUESTS, TOKENS = 900, 1_500_000
"""The quota, a minute: the corpus takes some twenty seconds at that."""
FAULTS = {"500": 0.02, "reset-before": 0.01, "malformed": 0.01}
_INPUTS = 16  # a request: enough requests to see the quota at work
_LATENCY_MS = 60
_READY_S = 30.0


@dataclass(frozen=True)
class DemoEnvironment:
    """What the demo plays on. ``url`` is the stand-in's."""

    settings: Settings
    urls: Urls
    url: str

    def served(self) -> dict[str, Any]:
        """Return the stand-in's own statistics."""
        with urllib.request.urlopen(f"{self.url}/_stand_in/stats", timeout=10) as answer:  # noqa: S310 - our own child
            return dict(json.load(answer))


@contextmanager
def demo_environment(folder: Path) -> Iterator[DemoEnvironment]:
    """Have all of it, in this process's ``PENSTOCK_HOME``.

    Args:
        folder: for the stand-in's log.

    Raises:
        PenstockError: something does not start.
    """
    from penstock.workers.processes.launcher import workers

    settings = load_settings()
    options = {"rpm": REQUESTS, "tpm": TOKENS, "latency_ms": _LATENCY_MS, "max_inputs": _INPUTS, "fault": FAULTS}
    with broker(settings) as urls, stand_in(folder / "stand-in.log", **options) as url:
        with connect(urls.broker) as client:
            Registry(client, settings).put("text_embedding", ENDPOINT, _body(url))
        with workers(PROCESSES, settings):
            yield DemoEnvironment(settings, urls, url)


def _body(url: str) -> dict[str, Any]:
    return {
        "service": "openai",
        "service_settings": {
            "url": f"{url}/v1",
            "api_key": "a-stand-in-takes-any",
            "model_id": "stand-in",
            "max_inputs_per_request": _INPUTS,
            "rate_limit": {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS},
        },
        "chunking_settings": {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1},
    }


@contextmanager
def own_home(keep_files: bool) -> Iterator[Path]:
    """Have a fresh folder with ``PENSTOCK_HOME`` in it, and no other ``PENSTOCK_`` variable that names a place.

    The user's own endpoints, broker and settings are neither used nor changed. What the demo made stays in the folder
    if ``keep_files``; the home itself goes, unless an error is raised, whose message may name its logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    home = folder / "home"
    home.mkdir(mode=0o700)
    before = {name: value for name, value in os.environ.items() if name.startswith("PENSTOCK_")}
    for name in before:
        del os.environ[name]
    os.environ["PENSTOCK_HOME"] = str(home)
    useless: Path | None = home if keep_files else folder
    try:
        yield folder
    except Exception:
        useless = None
        raise
    finally:
        del os.environ["PENSTOCK_HOME"]
        os.environ.update(before)
        if useless is not None:
            await_end(home)
            shutil.rmtree(useless, ignore_errors=True)


@contextmanager
def stand_in(log: Path, **options: Any) -> Iterator[str]:
    """Have a stand-in endpoint as a process of its own; yields its base URL.

    Args:
        log: file for what it says on its standard error.
        **options: as on its command line, with underscores; a mapping becomes several NAME=VALUE.

    Raises:
        PenstockError: it does not start.
    """
    argv = [sys.executable, "-m", "penstock.stand_in", "--port=0", "--json", "--with-parent", *_flags(options)]
    with log.open("wb") as errors:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    try:
        yield _url(process, log)
    finally:
        process.terminate()
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _flags(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from (f"{flag}={key}={each}" for key, each in value.items())
        else:
            yield f"{flag}={value}"


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _READY_S)
    line = process.stdout.readline() if ready else b""
    if not line.startswith(b"{"):
        words = log.read_text(errors="replace").strip().splitlines()
        raise PenstockError(f"the demo's stand-in endpoint did not start: {words[-1] if words else 'it wrote nothing'}")
    return str(json.loads(line)["url"])
