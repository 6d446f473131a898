"""Reading ahead: in order, within bounds, and what the source raises is raised where it is taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from penstock.tasks.backfill.plan import feed as feed_module
from penstock.tasks.backfill.plan.batch import Batch, OutputRow, Plan, Position
from penstock.tasks.backfill.plan.feed import Feed
from support.waiting import wait_until


def plan(number: int, size: int = 10) -> Plan:
    batch = Batch(number, f"t{number}", ["x"], [OutputRow(number, "i", 0, 0, 1)], [0], size, b"")
    return Plan(Position(number + 1), batch)


class Source:
    """Makes plans and counts them."""

    def __init__(self, count: int, size: int = 10, fails: bool = False) -> None:
        self.count, self.size, self.fails, self.made = count, size, fails, 0

    def plans(self) -> Iterator[Plan]:
        for number in range(self.count):
            self.made += 1
            yield plan(number, self.size)
        if self.fails:
            raise OSError("the disk is gone")
        yield Plan(Position(self.count), last=True)


def drain(feed: Feed) -> list[Plan]:
    found: list[Plan] = []
    while not feed.finished:
        wait_until(lambda: not feed.starved(), "a plan is ready", 5, every=0.001)
        taken = feed.take()
        assert taken is not None
        found.append(taken)
    return found


def test_plans_come_in_order_and_the_last_one_ends_it() -> None:
    feed = Feed(Source(200).plans())
    feed.start()
    found = drain(feed)
    assert [each.position.skip for each in found] == [*range(1, 201), 200]
    assert feed.take() is None
    feed.stop()


@pytest.mark.parametrize(("size", "ahead"), [(1, feed_module.PLANS_AHEAD), (feed_module.BYTES_AHEAD // 4, 4)])
def test_it_reads_ahead_within_bounds_of_count_and_bytes(size: int, ahead: int) -> None:
    source = Source(1000, size)
    feed = Feed(source.plans())
    feed.start()
    wait_until(lambda: source.made > ahead, "it has read ahead", 5)
    assert source.made == ahead + 1  # one more is made, and held back
    feed.take()
    wait_until(lambda: source.made == ahead + 2, "it reads on", 5)
    feed.stop()


def test_what_the_source_raises_is_raised_after_what_came_before() -> None:
    feed = Feed(Source(2, fails=True).plans())
    feed.start()
    with pytest.raises(OSError, match="the disk is gone"):
        drain(feed)
    feed.stop()


def test_stopping_ends_a_thread_that_waits_for_room() -> None:
    feed = Feed(Source(1000).plans())
    feed.start()
    feed.stop()
    assert not any(thread.name == "backfill-feed" for thread in threading.enumerate())
