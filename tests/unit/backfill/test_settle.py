"""What answers mean for a batch's texts. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from celery.exceptions import NotRegistered, TaskRevokedError
from redis.exceptions import RedisError

from penstock.config.errors import EndpointNotFound, InferenceFailed, LaneParked
from penstock.tasks.backfill.dispatch.settle import Meaning, meaning, settle
from penstock.tasks.backfill.ledger.ledger import Tally, TextFailure
from penstock.tasks.backfill.plan.batch import Batch, OutputRow
from penstock.workers.results.types import Effort, EmbedResult, Failure, Usage

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def batch(number: int = 0, which: Sequence[int] = (0, 1, 2)) -> Batch:
    texts = ["a", "b", "c"]
    output_rows = [OutputRow(row, f"id{row}", 0, 0, 1) for row in range(len(which))]
    return Batch(number, f"task{number}", texts, output_rows, list(which), 3, b"")


def test_a_full_answer_gives_each_row_its_texts_vector() -> None:
    effort = Effort(requests=3, retries=2, rate_limited=1, possibly_billed_twice=4)
    found = settle(batch(), EmbedResult(VECTORS, Usage(total_tokens=9), effort=effort), None)
    assert found.vectors is VECTORS
    assert list(found.rows) == [0, 1, 2]
    assert found.tally == Tally(embedded=3, requests=3, tokens=9, retries=2, rate_limited=1, possibly_billed_twice=4)


def test_rows_of_equal_texts_share_a_vector() -> None:
    found = settle(batch(which=[0, 0, 1, 2, 2]), EmbedResult(VECTORS), 4)
    assert found.vectors.tolist() == VECTORS[[0, 0, 1, 2, 2]].tolist()
    assert list(found.rows) == [0, 2, 3]
    assert list(found.texts) == ["a", "a", "b", "c", "c"]
    assert (found.tally.embedded, found.tally.duplicates_reused) == (5, 2)


def test_a_text_that_failed_costs_its_own_rows_only() -> None:
    result = EmbedResult(VECTORS, failures=(Failure(1, "content_filter", "no", 2),))
    found = settle(batch(which=[0, 1, 1, 2]), result, None)
    assert [output_row.id for output_row in found.output_rows] == ["id0", "id3"]
    assert found.vectors.tolist() == VECTORS[[0, 2]].tolist()
    assert list(found.rows) == [0, -1, 1]
    assert [(letter.id, letter.code, letter.attempts) for letter in found.dead] == [
        ("id1", "content_filter", 2),
        ("id2", "content_filter", 2),
    ]
    assert found.failures == {1: TextFailure("content_filter", "no", 2)}
    assert (found.tally.embedded, found.tally.failed, found.tally.duplicates_reused) == (2, 2, 0)


WHOLE_FAILURES: list[tuple[Any, str, int]] = [
    (InferenceFailed("[docs] server_error: gone", "server_error", 500, 8), "server_error", 8),
    (TaskRevokedError("revoked"), "revoked", 0),
    (ValueError("a defect"), "value_error", 0),
    (EmbedResult(VECTORS[:2]), "malformed_result", 0),
    (EmbedResult(np.zeros((3, 5), np.float32), effort=Effort(requests=1)), "wrong_dimensions", 1),
]


@pytest.mark.parametrize(("answer", "code", "attempts"), WHOLE_FAILURES, ids=[code for _, code, _ in WHOLE_FAILURES])
def test_a_call_that_failed_whole_gives_each_row_a_dead_letter(answer: Any, code: str, attempts: int) -> None:
    found = settle(batch(), answer, 4)
    assert [(letter.code, letter.attempts) for letter in found.dead] == [(code, attempts)] * 3
    assert all(letter.message for letter in found.dead)
    assert (list(found.output_rows), list(found.rows)) == ([], [-1, -1, -1])


def test_an_answer_in_which_nothing_succeeded_has_no_dimensions() -> None:
    failures = tuple(Failure(n, "content_filter", "no", 1) for n in range(3))
    found = settle(batch(), EmbedResult(np.empty((3, 0), np.float32), failures=failures), 4)
    assert [letter.code for letter in found.dead] == ["content_filter"] * 3


MEANINGS = [
    (EmbedResult(VECTORS), Meaning.VERDICT),
    (InferenceFailed("no"), Meaning.VERDICT),
    (TaskRevokedError("revoked"), Meaning.VERDICT),
    (ValueError("a defect"), Meaning.DEFECT),
    (LaneParked("parked"), Meaning.PARKED),
    (EndpointNotFound("gone"), Meaning.TROUBLE),
    (NotRegistered("penstock.embed"), Meaning.TROUBLE),
    (RedisError("away"), Meaning.TROUBLE),
    (ConnectionResetError("away"), Meaning.TROUBLE),
]


@pytest.mark.parametrize(("answer", "what"), MEANINGS, ids=[type(answer).__name__ for answer, _ in MEANINGS])
def test_only_what_is_said_of_the_texts_is_a_verdict(answer: Any, what: Meaning) -> None:
    assert meaning(answer) is what
