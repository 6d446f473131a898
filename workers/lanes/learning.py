"""What a lane learns of its limits: a pure function of what happened (``Signal``) and of what was known (``Known``).

The scripts send a signal on the rare answers that change a limit; ``limiter`` calls ``learn`` and writes back what has
changed. How a learnt limit grows from there, reservation by reservation, is in ``lua/limits.lua``: it starts at
``start``, comes near ``ceiling`` within ``RISE_S``, stays about it for ``plateau_s`` and then goes beyond.

An estimate is what the server accepted from one refusal to the next, for it had nothing left at both. Where there is
nothing to measure it is a guess. This module knows no Redis and no clock; times are milliseconds, limits per minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock.workers.lanes.constants import ENOUGH_MS, RISE_S
from penstock.workers.lanes.signals import Belated, Counts, Known, LaneRefused, Limit, Reopened, Signal

#: Seconds for which a limit stays about an estimate: at least, and at most, where it was confirmed.
SHORTEST_S, LONGEST_S = 24, 60
#: What is measured is cleared by ``MARGIN``, as ``PACE`` clears a configured limit, and come near from ``START`` of it.
START, MARGIN = 0.985, 0.99
#: Least share that is left by a guess; step by which a limit goes down, doubled for each in a row, where a measurement
#: has hardly begun.
STEP, SMALL_STEP = 0.75, 0.015
#: Share of what a young lane used that is kept at least, and of a limit of which nothing is known.
LEAST, HALF = 0.1, 0.5
#: Share of refusals up to which one is a stray one, and the same where it costs a few milliseconds.
STRAY, CHEAP = 0.0025, 0.006
#: From so long on a measurement may have begun in another world; from so long on a window of ten seconds is full.
LONG_MS, TEN_S_MS = 20_000, 9_500
#: A delay that is longer than this speaks of a window that is used up, not of the next place in it.
WINDOW_MS = 2_000
#: A lane is young for so long after it began, or awoke from idling.
YOUNG_MS = 10_000


def learn(signal: Signal, known: Known) -> Known:
    """Return what is known after a signal."""
    match signal:
        case LaneRefused():
            return _cut(signal, known)
        case Reopened():
            return _reopened(signal, known)
        case Belated():
            return _corrected(signal, known)


def lesson_of(signals: Sequence[Signal], known: Known) -> dict[str, Any]:
    """Return what the operation ``learn`` writes of what some signals teach; nothing where they teach nothing."""
    learnt = known
    for signal in signals:
        learnt = learn(signal, learnt)
    lesson = changes(known, learnt)
    if lesson:
        lesson["version"] = known.version
        for signal in signals:
            if isinstance(signal, LaneRefused):
                lesson |= {"requests.stood_at": signal.requests.stood_at, "tokens.stood_at": signal.tokens.stood_at}
    return lesson


def changes(known: Known, learnt: Known) -> dict[str, Any]:
    """Return the fields of the lane's hash that differ, by name."""
    found: dict[str, Any] = {}
    for name in ("requests", "tokens"):
        before, after = vars(getattr(known, name)), vars(getattr(learnt, name))
        written = ("limit", "start", "ceiling", "plateau_s", "cut_at")
        found |= {f"{name}.{each}": after[each] for each in written if after[each] != before[each]}
    for name in ("rough", "small_steps"):
        if getattr(learnt, name) != getattr(known, name):
            found[name] = getattr(learnt, name)
    return found


# Refused --------------------------------------------------------------------------------------------------------------


def _cut(refused: LaneRefused, known: Known) -> Known:
    """Lower a learnt limit after a refusal."""
    name = _whose(refused, known)
    counts: Counts = getattr(refused, name)
    before: Limit = getattr(known, name)
    # Nobody knew a limit: half of the pace at which we were going.
    limit = before.in_force or counts.reserved / max(1000.0, refused.measured_ms) * 60_000 * HALF
    if limit <= 0:
        return known  # nothing was sent, either
    if _is_stray(refused, name, limit):
        # A few ms of jitter are enough where a server allows no burst.
        plateau_s = max(SHORTEST_S, before.plateau_s)
        return _with(known, name, _begun(before, limit, limit * 0.995, plateau_s, refused.now))
    estimate = _estimate(refused, known, name, limit)
    plateau_s = estimate.plateau_s
    if plateau_s > 0 and before.ceiling > 0 and abs(estimate.ceiling / before.ceiling - 1) < 0.03:
        # The same estimate as before: it may be trusted for longer.
        plateau_s = max(plateau_s, min(LONGEST_S, 2 * before.plateau_s))
    learnt = _begun(before, estimate.ceiling, estimate.ceiling * START, plateau_s, refused.now)
    return replace(_with(known, name, learnt), rough=name if estimate.rough else "", small_steps=estimate.small_steps)


@dataclass(frozen=True)
class _Estimate:
    """The server's limit as far as a refusal shows it, and for how long to stay about it (0: it is a guess)."""

    ceiling: float
    plateau_s: float
    small_steps: int
    rough: bool = False


def _estimate(refused: LaneRefused, known: Known, name: str, limit: float) -> _Estimate:
    counts: Counts = getattr(refused, name)
    steps = known.small_steps
    if refused.awake_ms == refused.measured_ms:
        return _first_estimate(refused, counts, name, limit, steps)
    if refused.measured_ms >= ENOUGH_MS:
        allowed = max(_measured(refused, counts), _floor(refused, getattr(known, name), limit))
        return _Estimate(min(limit * 0.995, allowed * MARGIN), SHORTEST_S, 0)
    if refused.awake_ms < YOUNG_MS:
        return _guess(refused, name, limit, steps)
    # Again so soon: the more of them in a row, the bigger the steps.
    return _Estimate(limit * (1 - SMALL_STEP * 2 ** min(4, steps)), SHORTEST_S, steps + 1)


def _first_estimate(refused: LaneRefused, counts: Counts, name: str, limit: float, steps: int) -> _Estimate:
    """All that was accepted so far is what the server allows from the first request to the end of its delay."""
    delay_ms = refused.delay_ms
    if delay_ms <= WINDOW_MS:
        if refused.measured_ms < TEN_S_MS:
            return _guess(refused, name, limit, steps)
        delay_ms = 0.0
    elif counts.accepted <= 0:
        return _guess(refused, name, limit, steps)  # somebody else had used the window up
    elif not _is_exact(delay_ms):
        delay_ms -= 500  # whole seconds are rounded up
    whole_ms = refused.measured_ms + delay_ms
    allowed = max(counts.accepted / whole_ms * 60_000 * MARGIN, limit * LEAST)
    return _Estimate(min(limit * START, allowed), RISE_S, steps, rough=True)


def _measured(refused: LaneRefused, counts: Counts) -> float:
    """What was accepted since the last refusal, a minute."""
    allowed = counts.accepted / refused.measured_ms * 60_000
    if refused.delay_ms <= WINDOW_MS and refused.awake_ms >= YOUNG_MS:
        # The last 10 s are the server's limit exactly where it keeps a window of 10 s.
        return max(allowed, counts.accepted_10_s * 6)
    return allowed


def _floor(refused: LaneRefused, known: Limit, limit: float) -> float:
    """What is left of a limit whatever was measured."""
    if refused.delay_ms > WINDOW_MS:
        return limit * HALF
    if refused.measured_ms < LONG_MS:
        return limit * _share_after(refused.measured_ms)
    # In a long quiet the server may have had more left than we took: it is the limit of a moment ago that was too high.
    return min(limit, known.lagged) if known.lagged > 0 else limit * 0.9


def _guess(refused: LaneRefused, name: str, limit: float, steps: int) -> _Estimate:
    """Return a guess from the first refusals, when there is nothing to measure."""
    delay_ms = refused.delay_ms
    if _is_exact(delay_ms) and delay_ms <= WINDOW_MS:
        # A server that allows no burst says by its delay how much too early we were; one that allows some is no worse
        # guessed so.
        step_ms = _step_ms(refused, name, limit)
        share = step_ms / (step_ms + delay_ms)
        return _Estimate(limit * max(HALF, min(START, share)), SHORTEST_S if share > 0.9 else 0, steps)
    return _Estimate(limit * _share_after(refused.awake_ms), 0, steps)


def _share_after(quiet_ms: float) -> float:
    """Return the share of a limit that is right after so long without a refusal.

    Where a second's worth, or ten, may come at once, the pace was the less too high the longer it went well.
    """
    return max(STEP, min(0.95, quiet_ms / (quiet_ms + 1000)))


def _is_stray(refused: LaneRefused, name: str, limit: float) -> bool:
    cheap = _is_exact(refused.delay_ms) and refused.delay_ms < 0.05 * _step_ms(refused, name, limit)
    return refused.refused_share < (CHEAP if cheap else STRAY) and refused.awake_ms > YOUNG_MS


def _whose(refused: LaneRefused, known: Known) -> str:
    """Return the dimension that was hit; where nobody said, the one nearer to being used up."""
    requests, tokens = refused.requests, refused.tokens
    if refused.dimension or tokens.configured <= 0:
        return "tokens" if refused.dimension == "tokens" else "requests"
    if requests.configured <= 0:
        return "tokens"
    nearer = tokens.accepted / known.tokens.in_force > requests.accepted / known.requests.in_force
    return "tokens" if nearer else "requests"


def _is_exact(delay_ms: float) -> bool:
    """Tell whether a delay is named to the millisecond, as most are that are no whole seconds."""
    return delay_ms > 0 and delay_ms % 1000 != 0


def _step_ms(refused: LaneRefused, name: str, limit: float) -> float:
    """Return the place of one request on the schedule, in milliseconds."""
    return (max(1.0, refused.mean_tokens) if name == "tokens" else 1.0) * 60_000 / limit


# Later ----------------------------------------------------------------------------------------------------------------


def _reopened(reopened: Reopened, known: Known) -> Known:
    """What was accepted before the server closed is what it allows in the whole time."""
    if reopened.closed_ms < ENOUGH_MS or reopened.whole_ms <= 0:
        return known
    for name in ("requests", "tokens"):
        before: Limit = getattr(known, name)
        allowed = getattr(reopened, name) / reopened.whole_ms * 60_000 * MARGIN
        if 0 < allowed < before.limit:
            known = _with(known, name, _begun(before, allowed, allowed, 0, reopened.now))
    return known


def _corrected(belated: Belated, known: Known) -> Known:
    name = belated.dimension
    if known.rough != name:
        return known
    before: Limit = getattr(known, name)
    factor = 1 + belated.accepted / belated.before
    scaled = replace(before, limit=before.limit * factor, start=before.start * factor, ceiling=before.ceiling * factor)
    return _with(known, name, scaled)


def _begun(before: Limit, ceiling: float, start: float, plateau_s: float, now: float) -> Limit:
    return replace(before, limit=start, start=start, ceiling=ceiling, plateau_s=plateau_s, cut_at=now)


def _with(known: Known, name: str, limit: Limit) -> Known:
    return replace(known, tokens=limit) if name == "tokens" else replace(known, requests=limit)
