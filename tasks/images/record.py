"""What is known of a task's image generation, kept in Redis: written before each step that must not be done twice.

Before the submit stands ``submitting``. A worker that finds this in a message delivered again cannot know whether the
submit reached the service, and so does not submit again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from penstock.config.formats import FIELD, IMAGE_RECORD
from penstock.config.names import image_key
from penstock.workers.results.codec import decode, encode
from penstock.workers.results.types import Effort, ImageResult
from penstock.workers.runtime import Runtime

Phase = Literal["submitting", "submitted", "answered", "done", "failed"]

_OPERATION, _RESULT = "operation", "result"


@dataclass
class OperationRecord:
    """An image generation.

    Args:
        phase: ``submitting`` (the request may be on its way), ``submitted`` (the service works on it), ``answered``
            (the images are known), ``done`` (and are where they shall be), ``failed``.
        deadline: UNIX seconds after which it is given up.
        operation_id, poll_url: the provider's; None for a synchronous answer.
        times: UNIX seconds by state.
        pace_s: seconds from the submit to the first look, by the service's word.
        polls: requests for its state so far; ``troubles``: those without a good answer, in a row.
        effort: what it cost.
        error: arguments of the ``InferenceFailed`` that ended it.
        result: the images, from ``answered`` on.
    """

    phase: Phase
    deadline: float
    operation_id: str | None = None
    poll_url: str | None = None
    times: dict[str, float] = field(default_factory=dict)
    pace_s: float = 0.0
    polls: int = 0
    troubles: int = 0
    effort: Effort = Effort()
    error: list[Any] | None = None
    result: ImageResult | None = None


def pack(operation: OperationRecord) -> bytes:
    """Return an operation as it is stored, without its result."""
    fields = asdict(operation)
    del fields["result"]
    return orjson.dumps({FIELD: IMAGE_RECORD.number, **fields})


def unpack(stored: bytes, task_id: str) -> OperationRecord:
    """Return an operation, without its result, from what is stored of it.

    Raises:
        FormatTooNew: a newer version wrote it.
    """
    fields = orjson.loads(stored)
    if IMAGE_RECORD.check(fields.pop(FIELD, None), task_id) < 2:
        fields["phase"] = fields.pop("stage")
    return OperationRecord(**{**fields, "effort": Effort(**fields["effort"])})


class RecordStore:
    """The record of one task's operation.

    Args:
        runtime: this process's.
        task_id: None keeps nothing: a direct call is not delivered again.
        expires_s: seconds for which it is kept.
    """

    def __init__(self, runtime: Runtime, task_id: str | None, expires_s: float) -> None:
        self._runtime, self._task_id, self._expires_s = runtime, task_id, round(expires_s)
        self._key = image_key(runtime.settings.key_prefix, task_id) if task_id else None

    async def load(self) -> OperationRecord | None:
        """Return what is known, None if nothing has been begun.

        Raises:
            FormatTooNew: a newer version wrote the record.
        """
        if self._key is None:
            return None
        kept: dict[Any, Any] = await self._runtime.async_client().hgetall(self._key)
        if not kept:
            return None
        packed = kept.get(_RESULT.encode())
        operation = unpack(kept[_OPERATION.encode()], str(self._task_id))
        operation.result = decode(packed) if packed else None
        return operation

    async def claim(self, operation: OperationRecord) -> bool:
        """Write the operation down, unless another run has done so; returns whether it did."""
        if self._key is None:
            return True
        client = self._runtime.async_client()
        mine: Any = await client.hsetnx(self._key, _OPERATION, pack(operation))
        await client.expire(self._key, self._expires_s)
        return bool(mine)

    async def save(self, operation: OperationRecord) -> None:
        """Write the operation down."""
        if self._key is None:
            return
        fields: dict[Any, Any] = {_OPERATION: pack(operation)}
        if operation.result is not None:
            fields[_RESULT] = encode(operation.result)
        async with self._runtime.async_client().pipeline(transaction=True) as pipe:
            pipe.hset(self._key, mapping=fields)
            pipe.expire(self._key, self._expires_s)
            await pipe.execute()

    async def forget(self) -> None:
        """Take it down: nothing was submitted."""
        if self._key is not None:
            await self._runtime.async_client().delete(self._key)
