"""When a message is a suspect, and when it is what kills its workers."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.workers.broker.deaths import HEADER, Deaths, deaths_of

AMONG, ALONE = False, True


@pytest.mark.parametrize(
    ("deaths", "suspect", "convicted"),
    [
        ([], False, False),
        ([(AMONG, 5)], False, False),
        ([(AMONG, 5), (AMONG, 5)], True, False),
        ([(AMONG, 5), (AMONG, 5), (ALONE, 6), (ALONE, 7)], True, False),
        ([(AMONG, 5), (AMONG, 5), (ALONE, 6), (ALONE, 7), (ALONE, 8)], True, True),
        # Nothing completes meanwhile: the workers themselves may be at fault.
        ([(AMONG, 5), (AMONG, 5), *[(ALONE, 5)] * 10], True, False),
        ([(AMONG, 5), (AMONG, 5), (ALONE, 6), (ALONE, 6), (ALONE, 6), (ALONE, 7), (ALONE, 8)], True, True),
        # The broker was emptied, and its count began anew.
        ([(AMONG, 5), (AMONG, 5), (ALONE, 0), (ALONE, 1), (ALONE, 2)], True, False),
        ([(AMONG, 5)] * 9, True, False),
    ],
)
def test_deaths(deaths: list[tuple[bool, int]], suspect: bool, convicted: bool) -> None:
    found = Deaths()
    for alone, completed in deaths:
        found = found.one_more(alone=alone, completed=completed)
        headers: dict[str, Any] = {}
        found.write(headers)
        assert deaths_of(headers) == found
    assert (found.suspect, found.convicted) == (suspect, convicted)


@pytest.mark.parametrize("header", [None, 7, "3", [], [1, 2], [1, 2, "3"], [1, 2, 3, 4], {"among": 3}])
def test_a_header_that_cannot_be_read_counts_for_nothing(header: Any) -> None:
    assert deaths_of({HEADER: header}) == Deaths()
