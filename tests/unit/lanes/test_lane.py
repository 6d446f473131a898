"""A lane inside one process, with a limiter that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
import redis

from penstock.config.endpoints.endpoint import Endpoint, RateLimit
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import FormatTooNew
from penstock.workers.lanes.fair_queue import Permit
from penstock.workers.lanes.lane import Lane, LaneClosed
from penstock.workers.lanes.limiter import LATE_S, PACE, Slot, UsageReport
from penstock.workers.lanes.outcome import HeaderLimits, Outcome, OutcomeKind
from support.virtual_time import hold_up, in_virtual_time

OPEN = Slot(True, False, 0.0, 0, "", "", 0.0)


def shut(state: str = "", cool_s: float = 0.0, *, closed: bool = False, wait_s: float = 0.0, seq: int = 0) -> Slot:
    return Slot(False, closed, wait_s, seq, state, f"why {state}", cool_s)


class Scripted:
    """Gives the answers it was given, one for each reservation; the last goes on."""

    rtt_s = 0.0

    def __init__(self, *answers: Slot | Exception) -> None:
        self.answers: list[Slot | Exception] = list(answers) or [OPEN]
        self.state = OPEN
        self.reserved: list[tuple[float, bool]] = []
        self.reports: list[UsageReport] = []
        self.header_limits: list[tuple[float, ...]] = []
        self.told: list[tuple[Any, ...]] = []

    async def reserve(
        self, quota: str, limit: RateLimit, tokens: float, *, bulk: bool = False, report: UsageReport, **_: Any
    ) -> Slot:
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.reports.append(report)
        if answer.granted:
            self.reserved.append((tokens, bulk))
        return answer

    async def report(self, quota: str, report: UsageReport, *limits: float) -> Slot:
        self.reports.append(report)
        if limits:
            self.header_limits.append(limits)
        return self.state

    async def refuse(self, *args: Any, **kwargs: Any) -> bool:
        self.told.append(("refuse", *args, kwargs))
        return True

    async def fail(self, *args: Any) -> Slot:
        self.told.append(("fail", *args))
        return OPEN

    async def park(self, *args: Any) -> Slot:
        self.told.append(("park", *args))
        return OPEN


class AwayAtFirst(Scripted):
    """The broker takes no report at first."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True

    async def report(self, quota: str, report: UsageReport, *limits: float) -> Slot:
        if self.away:
            raise redis.ConnectionError("away")
        return await super().report(quota, report, *limits)


class Down(Scripted):
    """The broker is away: nothing can be told."""

    async def report(self, *_: Any) -> Slot:
        raise redis.ConnectionError("away")

    async def refuse(self, *_: Any, **__: Any) -> bool:
        raise redis.ConnectionError("away")

    fail = park = report


def endpoint(rpm: float | None = 600, tpm: float | None = None) -> Endpoint:
    return Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, rate_limit=RateLimit(rpm, tpm), version=3)


def lane(*answers: Slot | Exception, kind: type[Scripted] = Scripted) -> tuple[Lane, Scripted]:
    limiter = kind(*answers)
    return Lane(limiter, f"lane-test-{uuid4()}"), limiter  # type: ignore[arg-type]


async def slots(made: Lane, wanted: Sequence[tuple[int, bool]]) -> list[Any]:
    """Ask for slots at once: (tokens, bulk) each."""
    asked = [made.slot(endpoint(), lambda tokens=tokens: tokens, bulk=bulk) for tokens, bulk in wanted]
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_all_who_wait_for_a_lane_of_a_newer_version_are_told_what_to_upgrade() -> None:
    too_new = FormatTooNew("lane q", 3, 2)
    made, limiter = lane(too_new)
    found = await slots(made, [(1, True), (2, False)])
    assert [(type(each), str(each)) for each in found] == [(FormatTooNew, str(too_new))] * 2
    assert not limiter.reserved


async def test_interactive_requests_are_served_before_bulk_and_each_class_in_order() -> None:
    made, limiter = lane()
    await slots(made, [(1, True), (2, True), (3, False), (4, False)])
    assert limiter.reserved == [(3, False), (4, False), (1, True), (2, True)]


async def test_a_caller_who_went_away_takes_no_place() -> None:
    made, limiter = lane(shut(wait_s=0.01), OPEN)
    gone = asyncio.create_task(made.slot(endpoint(), lambda: 1))
    stays = asyncio.create_task(made.slot(endpoint(), lambda: 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).tokens == 2
    assert limiter.reserved == [(2, False)]


async def test_who_leaves_while_asleep_wakes_nobody() -> None:
    made, _ = lane(Slot(True, False, 0.05, 0, "", "", 0.0))
    gone = asyncio.create_task(made.slot(endpoint(), lambda: 1))
    await asyncio.sleep(0.02)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (await made.slot(endpoint(), lambda: 2)).tokens == 2


@pytest.mark.parametrize(
    ("answer", "state", "delay_s"),
    [
        (shut("parked", closed=True), "parked", 0.0),
        (shut("paused", closed=True), "paused", 0.0),
        (shut("", cool_s=60.0), "cooling", 60.0),
    ],
)
async def test_a_closed_lane_tells_all_who_wait_at_once(answer: Slot, state: str, delay_s: float) -> None:
    made, limiter = lane(answer)
    ends = await slots(made, [(1, False), (2, True), (3, False)])
    assert [(end.state, end.delay_s) for end in ends] == [(state, delay_s)] * 3
    assert all(isinstance(end, LaneClosed) for end in ends)
    assert not limiter.reserved


async def test_a_short_cool_down_is_waited_for() -> None:
    made, _ = lane(shut("", cool_s=0.05, wait_s=0.05), OPEN)
    assert [permit.tokens for permit in await slots(made, [(7, True)])] == [7]


async def test_news_of_a_cool_down_holds_back_those_still_asleep() -> None:
    made, limiter = lane(Slot(True, False, 5.0, 0, "", "", 0.0), shut("", cool_s=9.0))
    asleep = asyncio.create_task(made.slot(endpoint(), lambda: 1))
    await asyncio.sleep(0.01)
    limiter.state = shut("", cool_s=9.0, seq=1)
    await made.refresh()
    with pytest.raises(LaneClosed) as closed:
        await asleep
    assert (closed.value.state, closed.value.delay_s) == ("cooling", 9.0)


async def test_news_of_a_cool_down_that_is_over_already_has_places_taken_anew() -> None:
    made, limiter = lane(Slot(True, False, 5.0, 0, "", "", 0.0), Slot(True, False, 0.0, 1, "", "", 0.0))
    asleep = asyncio.create_task(made.slot(endpoint(), lambda: 7))
    await asyncio.sleep(0.01)
    limiter.state = Slot(True, False, 0.0, 1, "", "", 0.0)
    await made.refresh()
    assert (await asyncio.wait_for(asleep, 1)).seq == 1
    given_back = sum(limiter.reports, UsageReport())
    assert (given_back.places, given_back.place_tokens) == (1, 7)


def test_a_request_that_was_sent_late_says_by_how_much() -> None:
    async def scene() -> float:
        made, limiter = lane(Slot(True, False, 0.01, 0, "", "", 0.0))
        asleep = asyncio.create_task(made.slot(endpoint(), lambda: 1))
        await asyncio.sleep(0.005)
        hold_up(0.2)
        await asleep
        await made.refresh()
        return sum(limiter.reports, UsageReport()).late

    assert in_virtual_time(scene()) == pytest.approx(195 - LATE_S * 1000, abs=1)


async def test_so_does_one_whose_leave_was_read_late() -> None:
    made, limiter = lane(Slot(True, False, -0.2, 0, "", "", 0.0))
    await made.slot(endpoint(), lambda: 1)
    await made.refresh()
    assert sum(limiter.reports, UsageReport()).late == pytest.approx(150)


@pytest.mark.parametrize(("rpm", "late"), [(600, 50), (6000, 0), (None, 0)])
async def test_a_workers_first_request_may_be_late_where_no_burst_may_be_allowed(rpm: float | None, late: int) -> None:
    made, limiter = lane()
    for _ in range(3):
        await made.slot(endpoint(rpm), lambda: 1)
    await made.refresh()
    assert sum(each.late for each in limiter.reports) == late


async def test_only_what_was_sent_since_the_last_cool_down_tells_that_the_server_is_open() -> None:
    made, limiter = lane(Slot(True, False, 0.0, 3, "", "", 0.0))
    await made.slot(endpoint(), lambda: 1)
    for seq in (2, 3, 3):
        made.settle(Permit(10, seq, endpoint()), 40, 10, 0.1)
    await made.refresh()
    told = sum(limiter.reports, UsageReport())
    assert (told.ok, told.fresh, told.seq) == (3, 2, 3)


async def test_news_of_parking_sends_everybody_home() -> None:
    made, limiter = lane(Slot(True, False, 5.0, 0, "", "", 0.0))
    asleep = asyncio.create_task(made.slot(endpoint(), lambda: 1))
    await asyncio.sleep(0.01)
    limiter.state = shut("parked", closed=True)
    await made.refresh()
    with pytest.raises(LaneClosed, match="parked: why parked"):
        await asleep


async def test_a_broker_that_does_not_answer_is_asked_again_and_what_was_learnt_is_kept() -> None:
    made, limiter = lane(redis.ConnectionError("away"), OPEN)
    made.settle(Permit(10, 0, endpoint()), 40, 10, 0.1)
    await made.slot(endpoint(), lambda: 1)
    assert sum(each.ok for each in limiter.reports) == 1


async def test_work_goes_on_although_the_others_cannot_be_told() -> None:
    made, _ = lane(kind=Down)
    permit = Permit(1, 0, endpoint())
    await made.refused(permit, Outcome(OutcomeKind.RATE_LIMITED), 1.0)
    await made.failed(Outcome(OutcomeKind.SERVER_ERROR))
    assert "unauthorized" in await made.park(endpoint(), Outcome(OutcomeKind.UNAUTHORIZED))


@pytest.mark.parametrize("outcome_kind", list(OutcomeKind))
async def test_only_failures_of_the_server_or_the_way_to_it_count_towards_a_rest(outcome_kind: OutcomeKind) -> None:
    made, limiter = lane()
    await made.failed(Outcome(outcome_kind))
    assert bool(limiter.told) == (
        outcome_kind in (OutcomeKind.SERVER_ERROR, OutcomeKind.NOT_SENT, OutcomeKind.NO_ANSWER)
    )


# What answers teach ------------------------------------------------------------------------------------------------


async def settled(made: Lane, limiter: Scripted, reserved: float, used: float, tpm: float | None) -> UsageReport:
    made.settle(Permit(reserved, 0, endpoint(None, tpm)), 400, used, 0.1)
    await made.refresh()
    return limiter.reports[-1]


async def test_tokens_used_beyond_the_estimate_push_the_schedule_and_unused_ones_pull_it() -> None:
    made, limiter = lane()
    more = await settled(made, limiter, 100, 160, 6000)
    assert (more.ok, more.tokens) == (1, 160)
    assert more.correction == pytest.approx(60 * 60_000 / (6000 * PACE))
    less = await settled(made, limiter, 160, 100, 6000)
    assert less.correction == pytest.approx(-60 * 60_000 / (6000 * PACE))


@pytest.mark.parametrize("used", [0, -5, float("nan"), 1e12])
async def test_usage_that_is_nonsense_leaves_the_reservation_as_it_was(used: float) -> None:
    made, limiter = lane()
    told = await settled(made, limiter, 100, used, 6000)
    assert (told.ok, told.tokens, told.correction) == (1, 100, 0)


async def test_without_a_limit_of_tokens_nothing_is_corrected() -> None:
    made, limiter = lane()
    assert (await settled(made, limiter, 100, 160, None)).correction == 0


async def test_the_window_follows_the_tighter_of_requests_and_tokens() -> None:
    made, _ = lane()
    both = endpoint(600, 60_000)
    made.settle(Permit(100, 0, both), 400, 100, 0.1)
    assert made.window.rate == pytest.approx(10)
    made.settle(Permit(1000, 0, both), 40_000, 1_000_000, 0.1)  # nonsense usage: the reservation counts
    assert made.window.rate is not None
    assert made.window.rate < 10
    made.settle(Permit(100, 0, endpoint(None, None)), 400, 100, 0.1)
    assert made.window.rate is None


def limits(requests: float | None = None, left: float | None = None, **more: float) -> HeaderLimits:
    return HeaderLimits(limit_requests=requests, remaining_requests=left, **more)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        (limits(300, 299), 300.0),
        (limits(300, 0), 300.0),
        (limits(300, 300), 300.0),
        (limits(60_000, 59_999), 60_000.0),  # above the configured limit: the script takes the lower one
        (limits(300, None), 0.0),  # a limit without a remainder may be anything
        (limits(None, 299), 0.0),
        (limits(-1, -1), 0.0),
        (limits(0, 0), 0.0),
        (limits(300, -1), 0.0),
        (limits(300, 301), 0.0),
        (limits(1, 1), 0.0),  # absurdly low while nothing is refused
        (limits(29, 28), 0.0),
        (limits(30, 29), 30.0),
    ],
)
async def test_limits_in_headers_are_believed_when_they_make_sense(said: HeaderLimits, believed: float) -> None:
    made, limiter = lane()
    made.learn(endpoint(600), said)
    await asyncio.sleep(0)
    assert limiter.header_limits == ([(pytest.approx(believed * PACE), 0.0)] if believed else [])


async def test_after_a_refusal_even_an_absurdly_low_limit_is_believed() -> None:
    made, limiter = lane()
    refusal = Outcome(OutcomeKind.RATE_LIMITED, limits=limits(1, 0), delay_s=1.0)
    await made.refused(Permit(1, 0, endpoint(600)), refusal, 1.0)
    await asyncio.sleep(0)
    assert limiter.header_limits == [(pytest.approx(1 * PACE), 0.0)]


async def test_a_limit_is_told_once_and_again_when_it_changes() -> None:
    made, limiter = lane()
    for said in (limits(300, 9), limits(300, 8), limits(200, 7)):
        made.learn(endpoint(600), said)
        await asyncio.sleep(0)
    assert limiter.header_limits == [(pytest.approx(300 * PACE), 0.0), (pytest.approx(200 * PACE), 0.0)]


@pytest.mark.parametrize(
    ("outcome", "dimension"),
    [
        (Outcome(OutcomeKind.RATE_LIMITED, limits=HeaderLimits(remaining_requests=5, remaining_tokens=0)), "tokens"),
        (Outcome(OutcomeKind.RATE_LIMITED, limits=HeaderLimits(remaining_requests=0, remaining_tokens=5)), "requests"),
        (Outcome(OutcomeKind.RATE_LIMITED, limits=HeaderLimits(remaining_requests=0, remaining_tokens=0)), ""),
        (Outcome(OutcomeKind.RATE_LIMITED, message="Rate limit reached on tokens per min (TPM)"), "tokens"),
        (Outcome(OutcomeKind.RATE_LIMITED, message="Rate limit reached on requests per min (RPM)"), "requests"),
        (Outcome(OutcomeKind.RATE_LIMITED, message="too fast"), ""),
        (Outcome(OutcomeKind.RATE_LIMITED, "capacity", "requests are refused, the engine is overloaded"), "capacity"),
    ],
)
async def test_which_limit_was_hit_is_read_from_headers_then_from_words(outcome: Outcome, dimension: str) -> None:
    made, limiter = lane()
    await made.refused(Permit(1, 7, endpoint()), outcome, 1.0)
    (_, _, seq, delay_s, told, _, more), *_ = limiter.told
    assert (seq, delay_s, told, more) == (7, 1.0, dimension, {"named": False})


async def test_what_cannot_be_told_while_the_broker_is_away_is_told_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.workers.lanes.lane.FLUSH_S", 0.01)
    limiter = AwayAtFirst()
    lane = Lane(limiter, "q")  # type: ignore[arg-type]
    permit = Permit(10, 0, Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}))
    lane.settle(permit, 40, 10, 0.1)
    lane.give_back(permit)
    with pytest.raises(redis.ConnectionError):
        await lane.refresh()
    limiter.away = False
    while not limiter.reports:
        await asyncio.sleep(0.01)
    assert [(each.ok, each.places) for each in limiter.reports] == [(1, 1)]
