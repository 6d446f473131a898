"""Lanes against servers whose limits they know, know wrong, or do not know, in virtual time.

Figures are what the simulated server counted. The scenes are deterministic: their randomness has a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest
import redis

from penstock.config.endpoints.endpoint import RateLimit
from support.servers import Account, Scene, simulate
from support.valkey import ValkeyServer

RPM, TPM = 600.0, 60_000.0
Simulate = Callable[..., Account]


@pytest.fixture
def scene(valkey: ValkeyServer) -> Iterator[Simulate]:
    """Run a scene: ``scene("bucket-1s", configured=1200)``."""
    client = redis.Redis(unix_socket_path=str(valkey.socket))

    def run(window: str, configured: float | None, **more: Any) -> Account:
        return simulate(client, Scene(window, RPM, RateLimit(configured), **more))

    yield run
    client.close()


@pytest.fixture
def tokens_scene(valkey: ValkeyServer) -> Iterator[Simulate]:
    """Run a scene in which tokens are limited, and requests of uneven sizes are sent."""
    client = redis.Redis(unix_socket_path=str(valkey.socket))

    def run(window: str, configured: float | None, **more: Any) -> Account:
        limit = RateLimit(None, configured)
        return simulate(client, Scene(window, None, limit, tpm=TPM, **{"tokens": (5, 100), "delay": "ms", **more}))

    yield run
    client.close()


@pytest.mark.parametrize("window", ["bucket-1s", "sliding-10s", "fixed-10s", "fixed-1s"])
@pytest.mark.parametrize("workers", [1, 8])
def test_a_limit_that_is_configured_right_is_used_whole_and_nothing_is_refused(
    scene: Simulate, window: str, workers: int
) -> None:
    seen = scene(window, RPM, workers=workers, seconds=40)
    assert seen.use(5) >= 0.98
    assert not seen.refused


@pytest.mark.parametrize(
    ("window", "delay"),
    [
        ("bucket-1s", "s"),
        ("bucket-1s", "none"),
        ("sliding-10s", "s"),
        ("sliding-10s", "ms"),
        ("sliding-10s", "none"),
        ("fixed-10s", "s"),
        ("fixed-10s", "none"),
    ],
)
def test_a_limit_configured_twice_too_high_is_learnt(scene: Simulate, window: str, delay: str) -> None:
    seen = scene(window, 2 * RPM, delay=delay, seconds=120)
    assert seen.use(30) >= 0.95
    assert seen.refusals() < 0.02


@pytest.mark.parametrize("window", ["bucket-1s", "sliding-10s"])
def test_a_limit_configured_five_times_too_high_is_learnt(scene: Simulate, window: str) -> None:
    seen = scene(window, 5 * RPM, delay="ms", seconds=120)
    assert seen.use(30) >= 0.93
    assert seen.refusals() < 0.03


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("delay", ["s", "ms", "none"])
@pytest.mark.parametrize("window", ["bucket-1s", "sliding-10s"])
def test_a_limit_that_nobody_told_us_of_is_learnt(scene: Simulate, window: str, delay: str, workers: int) -> None:
    seen = scene(window, None, delay=delay, workers=workers, seconds=120)
    assert seen.use(30) >= 0.93
    assert seen.refusals() < 0.025


def test_a_window_of_a_minute_that_names_no_delay_is_found_out_with_few_attempts(scene: Simulate) -> None:
    seen = scene("sliding-60s", 2 * RPM, delay="none", seconds=240)
    assert seen.use() >= 0.95
    assert seen.refusals() < 0.02


def test_a_refusal_costs_its_delay_and_not_the_places_reserved_behind_it(scene: Simulate) -> None:
    seen = scene("sliding-10s", 2 * RPM, delay="ms", seconds=120)
    longest = max(after - before for (before, _), (after, _) in pairwise(seen.served) if before > 30)
    assert longest < 0.5


@pytest.mark.parametrize("window", ["gcra", "fixed-1s"])
def test_a_server_that_allows_no_burst_is_not_stormed(scene: Simulate, window: str) -> None:
    seen = scene(window, RPM, seconds=90, delay="ms")
    assert seen.refusals() <= 0.01
    assert seen.use(30) >= 0.85


def test_a_server_without_bursts_and_far_below_the_configured_limit_is_learnt(scene: Simulate) -> None:
    seen = scene("gcra", 5 * RPM, seconds=120, delay="none")
    assert seen.refusals() < 0.03
    assert seen.use(60) >= 0.85


def test_a_learnt_limit_recovers_when_the_server_allows_more(scene: Simulate) -> None:
    seen = scene("bucket-1s", 2 * RPM, seconds=150, relief=(40, 2 * RPM))
    assert seen.use(20, 40) == pytest.approx(1.0, abs=0.07)
    assert seen.use(120, 150) >= 1.8
    assert seen.refusals() < 0.02


def test_a_server_that_becomes_slower_is_followed(scene: Simulate) -> None:
    seen = scene("bucket-1s", RPM, seconds=100, relief=(20, RPM / 3))
    assert seen.use(5, 20) >= 0.98
    assert seen.use(50) >= 0.85 / 3
    assert seen.refusals() < 0.05


@pytest.mark.parametrize("bytes_per_token", [2.4, 4.0, 7.0])
def test_uneven_requests_use_the_whole_limit_of_tokens_whatever_the_tokenizer(
    tokens_scene: Simulate, bytes_per_token: float
) -> None:
    seen = tokens_scene("bucket-1s", TPM, bytes_per_token=bytes_per_token, seconds=30)
    assert seen.use(5) >= 0.97
    assert seen.refusals() <= 0.002


def test_small_requests_never_overrun_a_window_of_ten_seconds(tokens_scene: Simulate) -> None:
    seen = tokens_scene("sliding-10s", TPM, seconds=60)
    assert seen.use(5) >= 0.98
    assert not seen.refused


def test_uneven_requests_under_a_window_of_ten_seconds_are_seldom_refused(tokens_scene: Simulate) -> None:
    seen = [tokens_scene("sliding-10s", TPM, tokens=(5, 400), seconds=90, seed=seed) for seed in range(1, 6)]
    assert min(each.use(30) for each in seen) >= 0.9
    assert fmean(each.refusals() for each in seen) < 0.01


def test_a_limit_of_tokens_configured_twice_too_high_is_learnt(tokens_scene: Simulate) -> None:
    seen = tokens_scene("bucket-1s", 2 * TPM, seconds=60)
    assert seen.use(30) >= 0.95
    assert seen.refusals() < 0.02


def test_a_limit_of_tokens_that_nobody_told_us_of_is_learnt(tokens_scene: Simulate) -> None:
    seen = tokens_scene("bucket-1s", None, seconds=90)
    assert seen.use(30) >= 0.93
    assert seen.refusals() < 0.02
