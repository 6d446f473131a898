"""Jobs whose windows go by weight share a lane that serves in order of coming."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from penstock.config.endpoints.endpoint import RateLimit
from penstock.tasks.backfill.dispatch.window import SendWindow, window_of

LIMIT = RateLimit(tokens_per_minute=120_000)


def served(windows: dict[str, SendWindow], sizes: dict[str, int], rounds: int) -> Counter[str]:
    """Fill the windows, serve one message at a time in order, and count each job's bytes."""
    queue: deque[str] = deque()
    bytes_served: Counter[str] = Counter()
    for _ in range(rounds):
        for job, window in windows.items():
            while window.has_room():
                window.sent(1, sizes[job])
                queue.append(job)
        job = queue.popleft()
        windows[job].done(1, sizes[job])
        bytes_served[job] += sizes[job]
        for window in windows.values():
            window.look(len(queue))
    return bytes_served


@pytest.mark.parametrize(
    ("weight", "sizes"), [(1.0, (2000, 2000)), (1.0, (400, 3600)), (2.0, (1000, 2500)), (4.0, (800, 800))]
)
def test_a_lane_with_limited_tokens_is_shared_by_weight_whatever_the_messages_sizes(
    weight: float, sizes: tuple[int, int]
) -> None:
    windows = {"light": window_of(LIMIT), "heavy": window_of(LIMIT, weight)}
    got = served(windows, dict(zip(windows, sizes, strict=True)), 20_000)
    assert got["heavy"] / got["light"] == pytest.approx(weight, rel=0.12)


def test_a_lane_with_limited_requests_is_shared_by_weight_in_requests() -> None:
    windows = {"light": window_of(RateLimit(600)), "heavy": window_of(RateLimit(600), 3.0)}
    got = served(windows, {"light": 1000, "heavy": 1000}, 20_000)
    assert got["heavy"] / got["light"] == pytest.approx(3.0, rel=0.1)


def test_a_light_job_is_never_starved() -> None:
    windows = {"light": window_of(LIMIT, 0.01), "heavy": window_of(LIMIT, 100.0)}
    assert served(windows, {"light": 4000, "heavy": 4000}, 20_000)["light"] > 0
