"""What a call had already paid for when it was handed back, or when its worker died: kept in Redis, found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from penstock.config.names import progress_key
from penstock.tasks.embedding.batch import EmbedBatch
from penstock.tasks.request.delivery import Delivery
from penstock.tasks.request.patience import patiently
from penstock.workers.lanes.lane import LaneClosed
from penstock.workers.results.types import Effort, Failure, Usage
from penstock.workers.runtime import Runtime

NOTE, CLEAN = b"note", b"clean"


class Progress:
    """Progress of one task.

    Args:
        runtime: this process's.
        request: Celery's, of the task.
    """

    def __init__(self, runtime: Runtime, request: Any) -> None:
        self._runtime = runtime
        self.delivery = Delivery(runtime, request)
        self._key = progress_key(runtime.settings.key_prefix, request.id)
        self._saved = False

    async def restore(self, batch: EmbedBatch) -> None:
        """Fill in what an earlier run of a message that was delivered again had got, and what it had cost.

        Inputs of a run that ended without a trace (its worker was killed) may have been sent: they count as possibly
        billed twice.
        """
        client = self._runtime.async_client()
        kept: dict[Any, Any] = await patiently(lambda: client.hgetall(self._key))
        if kept:
            self._saved = True
            _fill(batch, kept)
        if CLEAN in kept:
            # Removed, so that a death of this run is not mistaken for an orderly end.
            await patiently(lambda: client.hdel(self._key, CLEAN))
            return
        still_open = len(batch.open(range(len(batch.inputs))))
        batch.effort += Effort(retries=1, possibly_billed_twice=still_open)

    async def checkpoint(self, batch: EmbedBatch, positions: Sequence[int]) -> None:
        """Put the vectors of a finished request in safety, while the call's others are still to come."""
        if not self.delivery.direct:
            await self._save(batch, positions)

    async def keep(self, batch: EmbedBatch, closed: LaneClosed) -> None:
        """Put all that has come in safety, before the message goes back to the broker."""
        batch.attempts, batch.refusals = max(batch.attempts, closed.attempts), max(batch.refusals, closed.refusals)
        await self._save(batch, list(batch.rows), clean=True)

    async def finish(self) -> None:
        """Forget what was kept: the result has it all."""
        if self._saved:
            await patiently(lambda: self._runtime.async_client().delete(self._key))

    async def _save(self, batch: EmbedBatch, positions: Sequence[int], *, clean: bool = False) -> None:
        self._saved = True
        fields: dict[Any, Any] = {NOTE: orjson.dumps(_note(batch))}
        if clean:
            fields[CLEAN] = b"1"
        for n in positions:
            row = batch.rows[n]
            fields[str(n)] = row.dtype.str.encode() + b" " + row.tobytes()
        await patiently(lambda: self._write(fields))

    async def _write(self, fields: dict[Any, Any]) -> None:
        async with self._runtime.async_client().pipeline() as pipe:
            pipe.hset(self._key, mapping=fields)
            pipe.expire(self._key, self._runtime.settings.result_expires_s)
            await pipe.execute()


def _note(batch: EmbedBatch) -> dict[str, Any]:
    return {
        "effort": vars(batch.effort),
        "usage": vars(batch.usage),
        "model": batch.model,
        "tries": [batch.attempts, batch.refusals],
        "failures": [vars(failure) for failure in batch.failures.values()],
    }


def _fill(batch: EmbedBatch, kept: dict[bytes, bytes]) -> None:
    note = orjson.loads(kept[NOTE])
    batch.usage, batch.effort, batch.model = Usage(**note["usage"]), Effort(**note["effort"]), note["model"]
    batch.attempts, batch.refusals = note["tries"]
    batch.failures.update({failure["index"]: Failure(**failure) for failure in note["failures"]})
    for name, value in kept.items():
        if name.isdigit():
            dtype, _, raw = value.partition(b" ")
            batch.rows[int(name)] = np.frombuffer(raw, dtype=dtype.decode())
