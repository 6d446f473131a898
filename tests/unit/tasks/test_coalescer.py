"""Small calls that share a request: what each has got is its own, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import Caps, TaskType
from penstock.tasks.embedding import coalescer
from penstock.tasks.embedding.batch import EmbedBatch
from penstock.tasks.embedding.coalescer import Coalescer
from penstock.workers.lanes.lane import LaneClosed
from penstock.workers.lanes.tokens import TokenRatio
from penstock.workers.results.types import Effort


class Caller:
    """Has a permit for whoever asks."""

    lane = SimpleNamespace(ratio=TokenRatio())
    effort = Effort(requests=2)

    async def permit(self, tokens: Any) -> Any:
        await asyncio.sleep(0)
        return SimpleNamespace(tokens=1000.0)


def calls(*sizes: int) -> list[EmbedBatch]:
    return [EmbedBatch([f"text {n}.{m}" for m in range(size)], [8] * size) for n, size in enumerate(sizes)]


async def test_a_lane_that_closes_half_way_leaves_each_call_what_was_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def embed_half(caller: Any, batch: EmbedBatch, positions: Sequence[int], permit: Any) -> None:
        batch.rows.update({n: np.array([n], np.float32) for n in positions[:3]})
        raise LaneClosed("paused", "by hand", 0.0)

    monkeypatch.setattr(coalescer, "embed_positions", embed_half)
    endpoint = Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, caps=Caps(inputs=16))
    gathers: Any = Coalescer(Caller, endpoint, {}, None, lambda: None)  # type: ignore[arg-type]
    made = calls(2, 2, 1)
    ends = await asyncio.gather(*map(gathers.embed, made), return_exceptions=True)
    assert ends[0] is None, "it has all that it asked for"
    assert [type(end) for end in ends[1:]] == [LaneClosed, LaneClosed]
    assert [{n: row[0] for n, row in batch.rows.items()} for batch in made] == [{0: 0, 1: 1}, {0: 2}, {}]
