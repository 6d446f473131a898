"""The stand-in endpoint as a process of a test."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.processes import Child
from support.waiting import wait_until


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Turn ``latency_ms=20, fault={"500": 0.1}, quiet=True`` into command line arguments."""
    argv: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            argv.append(flag)
        elif isinstance(value, Mapping):
            argv += [part for kind, rate in value.items() for part in (flag, f"{kind}={rate}")]
        elif isinstance(value, list | tuple):
            argv += [part for each in value for part in (flag, str(each))]
        elif value is not None and value is not False:
            argv += [flag, str(value)]
    return argv


class StandIn:
    """A running stand-in. ``url`` has no path; ``stats`` and ``configure`` speak to its control API."""

    def __init__(self, log: Path, **options: Any):
        options.setdefault("port", 0)
        argv = [sys.executable, "-m", "penstock.stand_in", "--json", *arguments(options)]
        self.child = Child(argv, log)
        line: Any = wait_until(self._first_line, "the stand-in's JSON line", 30)
        self.url: str = str(line["url"]).rstrip("/")

    def _first_line(self) -> dict[str, Any] | None:
        for line in self.child.log.splitlines():
            if line.startswith("{") and '"url"' in line:
                return dict(json.loads(line))
        assert self.child.running, f"the stand-in ended with {self.child.exit_code}:\n{self.child.log[-3000:]}"
        return None

    def stats(self) -> dict[str, Any]:
        """What it has served so far."""
        with urllib.request.urlopen(f"{self.url}/_stand_in/stats", timeout=10) as answer:
            return dict(json.load(answer))

    def configure(self, **options: Any) -> dict[str, Any]:
        """Change options at run time."""
        request = urllib.request.Request(
            f"{self.url}/_stand_in/config",
            data=json.dumps(options).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer) or {})

    def stop(self) -> None:
        self.child.kill_all()
