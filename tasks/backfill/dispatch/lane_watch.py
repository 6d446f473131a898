"""Looks at the lane now and then, and says what the user must know: parked, paused, no worker."""

from __future__ import annotations

import threading
import time

import redis
from celery import Celery

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.settings import Settings
from penstock.tasks.backfill.progress import quota_use
from penstock.workers.lanes.status import LaneState, read_lane

LOOK_S = 1.0
SILENCE_S = 5.0
"""Seconds without a result after which workers are asked whether they are there."""

CLOSED = frozenset({"cooling", "paused", "parked", "probing"})


class LaneWatch:
    """Watches one endpoint's lane.

    Args:
        app: for asking workers.
        client: of the Redis that holds the lanes.
        settings: for the keys.
        endpoint: whose lane.
        no_workers: what to say when no worker answers.
    """

    def __init__(
        self, app: Celery, client: redis.Redis, settings: Settings, endpoint: Endpoint, no_workers: str
    ) -> None:
        self._app, self._client, self._settings, self._endpoint = app, client, settings, endpoint
        self._no_workers = no_workers
        self._next = 0.0
        self._asking: threading.Thread | None = None
        self._alone = False
        self._idle_until = 0.0
        self.state = LaneState(endpoint.quota)

    @property
    def closed(self) -> bool:
        """Whether the lane lets nothing through at present."""
        return self.state.state in CLOSED

    @property
    def quota_use(self) -> float | None:
        """Share of the quota used over the last minute, or since the lane was last seen idle if that is less."""
        limit = RateLimit(self.state.requests_limit, self.state.tokens_limit)
        seconds = min(60.0, max(LOOK_S, time.monotonic() - self._idle_until))
        return quota_use(limit, self.state.requests, self.state.tokens, seconds)

    def look(self, heard_at: float) -> None:
        """Read the lane's state, once a second at most; ask for workers when nothing was heard for long."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_S
        self.state = read_lane(self._client, self._settings, self._endpoint.quota, self._endpoint)
        if not self.state.requests:
            self._idle_until = now
        if now - heard_at < SILENCE_S or self.closed:
            self._alone = False
        elif self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, name="backfill-ping", daemon=True)
            self._asking.start()

    def _ask(self) -> None:
        try:
            self._alone = not self._app.control.ping(timeout=2.0)
        except Exception:
            self._alone = False  # the broker is away; that is reported elsewhere

    @property
    def note(self) -> str:
        """What the user should know, "" for nothing."""
        lane, name = self.state, self._endpoint.inference_id
        if lane.state in ("parked", "probing"):
            return f"Paused: the lane of {name} is parked: {lane.why}. When that is fixed: penstock lane resume {name}"
        if lane.state == "paused":
            parked = f", and is parked: {lane.underlying_why}" if lane.underlying in ("parked", "probing") else ""
            return f"Paused: the lane of {name} was paused{parked}. To go on: penstock lane resume {name}"
        if lane.state == "cooling" and lane.cool_s > LOOK_S:
            return f"The lane of {name} is cooling: {lane.why}"
        return self._no_workers if self._alone else ""
