"""Our app, in a worker that traces the way of a text."""

from __future__ import annotations

from support.text_way import start_from_environment

start_from_environment()

from penstock.workers.app import app  # noqa: E402 - traced from its first import on

__all__ = ["app"]
