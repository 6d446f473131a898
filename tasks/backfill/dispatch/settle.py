"""What a batch's answer means for its texts: a vector, or why there is none. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from celery.exceptions import NotRegistered, TaskRevokedError
from kombu.exceptions import OperationalError
from numpy.typing import NDArray
from redis.exceptions import RedisError

from penstock.config.errors import ConfigurationError, LaneParked, PenstockError
from penstock.tasks.backfill.dispatch.results import TaskAnswer
from penstock.tasks.backfill.ledger.ledger import Tally, TextFailure
from penstock.tasks.backfill.plan.batch import Batch, DeadLetter, OutputRow
from penstock.workers.results.types import EmbedResult


@dataclass(frozen=True)
class Settled:
    """A batch that is done.

    Args:
        output_rows: of the texts that have vectors.
        texts: a text a row.
        vectors: ``(rows, d)`` float32.
        rows: for each of the batch's texts the index of its first row among ``output_rows``, -1 where it failed.
        failures: of the texts that failed.
        dead: a dead letter for each row that failed.
        tally: what it adds to the counts.
    """

    output_rows: Sequence[OutputRow]
    texts: Sequence[str]
    vectors: NDArray[np.float32]
    rows: Sequence[int]
    failures: dict[int, TextFailure]
    dead: Sequence[DeadLetter]
    tally: Tally


class Meaning(StrEnum):
    """What an answer says."""

    VERDICT = "verdict"  # of the texts: vectors, or why there are none
    PARKED = "parked"  # the lane was parked before anything was sent
    TROUBLE = "trouble"  # with the endpoint, the worker or the broker: nothing about the texts
    DEFECT = "defect"  # an error that nobody foresaw: of the worker, or brought about by these very texts


def meaning(answer: TaskAnswer) -> Meaning:
    """Tell whether an answer says something of the texts.

    A parked lane, an endpoint that was deleted, a worker that does not know the task or lost its broker: these say
    nothing, and the batch must be sent again when that is fixed. They never become dead letters. Nor does an
    unforeseen error, while other batches fare no better.
    """
    if isinstance(answer, LaneParked):
        return Meaning.PARKED
    if isinstance(answer, ConfigurationError | NotRegistered | RedisError | OperationalError | ConnectionError):
        return Meaning.TROUBLE
    if isinstance(answer, EmbedResult | PenstockError | TaskRevokedError):
        return Meaning.VERDICT
    return Meaning.DEFECT


def settle(batch: Batch, answer: TaskAnswer, dimensions: int | None) -> Settled:
    """Tell which texts of a batch have vectors.

    Args:
        batch: what was sent.
        answer: what came; its meaning must be a verdict.
        dimensions: length of the job's vectors, None while it is not known.
    """
    failures = _failures(batch, answer, dimensions)
    # Rows of one text lie side by side, in the order of the texts.
    keep = [index not in failures for index in batch.which] if failures else []
    output_rows = (
        [output_row for output_row, kept in zip(batch.output_rows, keep, strict=True) if kept]
        if failures
        else batch.output_rows
    )
    which = [index for index in batch.which if index not in failures] if failures else batch.which
    rows = [-1] * len(batch.texts)
    for row, index in enumerate(which):
        if rows[index] < 0:
            rows[index] = row
    dead = [
        DeadLetter(output_row.ordinal, output_row.chunk, output_row.id, *failures[index])
        for output_row, index in zip(batch.output_rows, batch.which, strict=True)
        if index in failures
    ]
    done = len(batch.texts) - len(failures)
    return Settled(
        output_rows,
        [batch.texts[index] for index in which],
        _vectors(answer, which, len(batch.texts)),
        rows,
        failures,
        dead,
        _tally(answer) + Tally(embedded=len(output_rows), failed=len(dead), duplicates_reused=len(output_rows) - done),
    )


def _vectors(answer: TaskAnswer, which: Sequence[int], texts: int) -> NDArray[np.float32]:
    if not isinstance(answer, EmbedResult) or not which:
        return np.empty((0, 0), np.float32)
    vectors: NDArray[np.float32] = answer.vectors.astype(np.float32, copy=False)
    if len(which) == texts and which[-1] == texts - 1:  # every text once
        return vectors
    rows: NDArray[np.float32] = vectors[np.asarray(which, np.intp)]
    return rows


def _failures(batch: Batch, answer: TaskAnswer, dimensions: int | None) -> dict[int, TextFailure]:
    count = len(batch.texts)
    if not isinstance(answer, EmbedResult):
        return dict.fromkeys(range(count), _whole(answer))
    if len(answer) != count:
        why = TextFailure("malformed_result", f"{len(answer)} vectors came for {count} texts", 0)
        return dict.fromkeys(range(count), why)
    failures = {each.index: TextFailure(each.code, each.message, each.attempts) for each in answer.failures}
    width = int(answer.vectors.shape[1])
    if dimensions is not None and width != dimensions and len(failures) < count:
        message = f"a vector of {width} dimensions, where the job's have {dimensions}: was the model changed?"
        attempts = answer.effort.requests
        return dict.fromkeys(range(count), TextFailure("wrong_dimensions", message, attempts)) | failures
    return failures


def _whole(exc: BaseException | EmbedResult) -> TextFailure:
    """Say why a whole call failed."""
    if isinstance(exc, TaskRevokedError):
        return TextFailure("revoked", "the task was revoked", 0)
    code = getattr(exc, "code", None) or _snake(type(exc).__name__)
    return TextFailure(str(code), str(exc) or type(exc).__name__, int(getattr(exc, "attempts", 0) or 0))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _tally(answer: TaskAnswer) -> Tally:
    if not isinstance(answer, EmbedResult):
        return Tally(requests=int(getattr(answer, "attempts", 0) or 0))
    effort = answer.effort
    return Tally(
        requests=effort.requests,
        tokens=answer.usage.total_tokens,
        retries=effort.retries,
        rate_limited=effort.rate_limited,
        possibly_billed_twice=effort.possibly_billed_twice,
    )
