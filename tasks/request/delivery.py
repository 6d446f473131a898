"""How a task's message came, and where it goes when the task cannot be done now."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import orjson
from celery.exceptions import Ignore, Reject

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.names import (
    BULK,
    INTERACTIVE,
    JobClass,
    handed_back_key,
    operations_queue,
    parse_queue,
    queue_name,
)
from penstock.config.urls import is_redis
from penstock.tasks.request.patience import patiently
from penstock.tasks.request.retry import parked
from penstock.workers.broker.delayed import set_aside
from penstock.workers.lanes.lane import HAND_BACK_S, LaneClosed
from penstock.workers.results.types import Effort
from penstock.workers.runtime import Runtime

T = TypeVar("T")

#: Seconds at least between two looks at a closed lane, where nobody else can do the waiting.
LEAST_WAIT_S = 0.2
#: Seconds, about, for which a submit that found no operation free gives its place in the worker to others.
FULL_S = 3.0


class Delivery:
    """One task's message.

    Args:
        runtime: this process's.
        request: Celery's, of the task.
    """

    def __init__(self, runtime: Runtime, request: Any) -> None:
        self._runtime = runtime
        self.direct = bool(request.called_directly) or bool(getattr(request, "is_eager", False))
        self.task_id: str | None = None if self.direct else request.id
        info = request.delivery_info or {}
        lane = parse_queue(info.get("routing_key") or "")
        self.job_class: JobClass = lane[1] if lane else INTERACTIVE
        self.redelivered = bool(info.get("redelivered")) and not self.direct
        self._tag = (getattr(request, "properties", None) or {}).get("delivery_tag")
        self._note = handed_back_key(runtime.settings.key_prefix, str(self.task_id))

    @property
    def bulk(self) -> bool:
        """Whether it is bulk work."""
        return self.job_class == BULK

    @property
    def waits_here(self) -> bool:
        """Whether a closed lane is waited for in the task: nobody takes a direct call's message back, and RabbitMQ,
        which knows no lanes, would deliver it again at once."""
        return self.direct or not self._gated

    @property
    def _gated(self) -> bool:
        broker = self._runtime.settings.broker_url
        return broker is None or is_redis(broker.get_secret_value())

    async def earlier(self) -> Effort:
        """Return what earlier runs of this task have cost.

        One that ended without a trace (its worker was killed) may have sent its request: it counts as possibly billed
        twice.
        """
        if not self.redelivered:
            return Effort()
        return await self.noted() or Effort(retries=1, possibly_billed_twice=1)

    async def noted(self) -> Effort | None:
        """Return what had been spent when the message was handed back, None if it was not. It is returned once."""
        if not self.redelivered:
            return None
        kept: Any = await patiently(lambda: self._runtime.async_client().getdel(self._note))
        return Effort(**orjson.loads(kept)) if kept else None

    async def note(self, effort: Effort) -> None:
        """Keep what has been spent for the run that the message comes back to."""
        expires_s = self._runtime.settings.result_expires_s
        noted = orjson.dumps(vars(effort))
        await patiently(lambda: self._runtime.async_client().set(self._note, noted, ex=expires_s))

    async def until_open(
        self, endpoint: Endpoint, work: Callable[[], Awaitable[T]], keep: Callable[[LaneClosed], Awaitable[None]]
    ) -> T:
        """Do the work. While its lane is closed the message goes back to the broker; where nobody takes it, wait here.

        Args:
            endpoint: whose lane it is.
            work: raises LaneClosed; called again after a wait.
            keep: puts what has come of it in safety, before the message goes back.

        Raises:
            LaneParked: to an interactive caller of a parked lane.
            Reject, Ignore: to Celery: the message is on its queue again, where it waits for the lane, or set aside.
        """
        while True:
            done, closed = await _closed_by(work())
            if closed is None:
                return cast("T", done)
            if closed.state == "parked" and not self.bulk:
                raise parked(endpoint, closed)
            if self.waits_here:
                await asyncio.sleep(min(max(closed.delay_s, LEAST_WAIT_S), HAND_BACK_S))
                continue
            await keep(closed)
            if closed.state == "full":
                aside_s = random.uniform(0.5, 1.5) * FULL_S
                await self._set_aside(queue_name(endpoint.inference_id, self.job_class), aside_s)
            raise Reject(f"handed back, the lane is {closed.state}", requeue=True)

    async def look_again(self, endpoint: Endpoint, delay_s: float) -> None:
        """Set the message aside; it comes back past the lane's gate. Where it cannot be set aside, wait here.

        Raises:
            Ignore: to Celery: this delivery has ended.
        """
        await self._set_aside(operations_queue(endpoint.inference_id), delay_s)

    async def _set_aside(self, queue: str, delay_s: float) -> None:
        prefix = self._runtime.settings.key_prefix
        if self._tag and not self.waits_here:
            client = self._runtime.async_client()
            if await set_aside(client, prefix, self._tag, queue, delay_s):
                raise Ignore("set aside until it is due")
        await asyncio.sleep(delay_s)


async def _closed_by(work: Awaitable[T]) -> tuple[T | None, LaneClosed | None]:
    """Await work; return the closed lane that stopped it. (What is raised in an ``except``, Celery logs whole.)"""
    try:
        return await work, None
    except LaneClosed as closed:
        return None, closed
