"""A few seeds of the simulation; CI runs hundreds (``python -m tests.simulation``)."""

from __future__ import annotations

import pytest

from simulation.scenario import KINDS, MOST_CALLS, SWITCHED_OFF, draw
from simulation.seeds import run_seed, run_share, server

# A process that dies drops what it was about to send.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'Link.carry_out' was never awaited:RuntimeWarning")


@pytest.mark.parametrize("first", [0, 6])
def test_every_invariant_holds(first: int) -> None:
    for outcome in run_share(range(first, first + 6)):
        assert not outcome.invariant, f"{outcome.words}\nagain: python -m tests.simulation --seed {outcome.seed}"
        assert outcome.requests
        assert outcome.calls <= MOST_CALLS + 500, "it ends soon after it may call no more"


def test_a_seed_happens_again_to_the_last_event() -> None:
    with server() as client:
        logs = [run_seed(client, seed).log for seed in (31, 33, 31)]
    assert len(logs[0]) > 50
    assert logs[0] == logs[2] != logs[1]


def test_seeds_differ_and_have_every_trouble_that_is_switched_on() -> None:
    drawn = [draw(seed) for seed in range(200)]
    assert {fault.kind for each in drawn for fault in each.faults} == set(KINDS)
    assert not set(KINDS) & set(SWITCHED_OFF)
    assert {each.workers for each in drawn} >= {1, 2, 8, 64}
