"""The stand-in's state: its options, its quotas, its counters and its clock. One process, one loop, no locks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from penstock.stand_in.answers.image_jobs import ImageJob
from penstock.stand_in.limits import Quota, quota
from penstock.stand_in.options import Options
from penstock.stand_in.stats import Stats

_LIMITS = frozenset({"rpm", "tpm", "window", "burst", "quota_by", "charge_failed"})


class StandIn:
    """What the handlers share.

    Args:
        options: as given on the command line; ``configure`` changes them while it runs.
        clock: seconds of a clock that never goes back, for limits and durations.
        wall: seconds since 1970, for statistics.
    """

    def __init__(
        self, options: Options, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.options = options
        self.wall = wall
        self._clock = clock
        self._started = clock()
        self.quotas: dict[str, Quota] = {}
        self.stats = Stats(options.track_texts)
        self.working = 0
        self.image_jobs: dict[str, ImageJob] = {}
        self.tokens: dict[str, float] = {}  # access tokens given out, and when each ends on our clock
        self.cool_until = options.cool_down_s

    def now(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._started

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change options; quotas start afresh if one of theirs changes, a cool-down starts if it is named.

        Raises:
            ConfigurationError: names each option that is wrong; nothing is changed.
        """
        before, self.options = self.options, self.options.changed(changes)
        if any(getattr(before, name) != getattr(self.options, name) for name in _LIMITS):
            self.quotas.clear()
        if "cool_down_s" in changes or "cool-down-s" in changes:
            self.cool_until = self.now() + self.options.cool_down_s
        self.stats.billing.limit = self.options.track_texts

    def reset(self) -> None:
        """Forget counts, quotas' use, image operations and the numbers of requests; options stay."""
        in_flight = self.stats.in_flight
        self.stats = Stats(self.options.track_texts, in_flight=in_flight, in_flight_maximum=in_flight)
        self.quotas.clear()
        self.image_jobs.clear()
        self.cool_until = 0.0

    def quota(self, model: str, key: str) -> Quota:
        """Return the quota on which a request of ``model`` with ``key`` draws."""
        options = self.options
        name = {"all": "", "model": model, "key": key}[options.quota_by]
        if name not in self.quotas:
            self.quotas[name] = quota(options.window, options.rpm, options.tpm, options.burst, options.charge_failed)
        return self.quotas[name]

    def report(self) -> dict[str, Any]:
        """Return the statistics as JSON."""
        own = quota(self.options.window, self.options.rpm, self.options.tpm, self.options.burst)
        rpm = own.requests.per_minute if own.requests else None
        tpm = own.tokens.per_minute if own.tokens else None
        return self.stats.report(self.wall(), rpm, tpm)


STAND_IN: web.AppKey[StandIn] = web.AppKey("stand_in", StandIn)
