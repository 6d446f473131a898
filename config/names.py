"""Names of the Celery queues: one per endpoint and class of job, one for chunking, one for the rest."""

from __future__ import annotations

from typing import Literal

JobClass = Literal["interactive", "bulk"]

INTERACTIVE: JobClass = "interactive"
BULK: JobClass = "bulk"
JOB_CLASSES: tuple[JobClass, ...] = (INTERACTIVE, BULK)

DEFAULT_QUEUE = "penstock"
CHUNK_QUEUE = "penstock.chunk"

_PREFIX = "penstock."


def queue_name(inference_id: str, job_class: JobClass = INTERACTIVE) -> str:
    """Return the queue of an endpoint's lane for one class of jobs.

    This is Celery's name; the list in Redis has ``Settings.key_prefix`` before it (see ``queue_key``).
    """
    return f"{_PREFIX}{inference_id}.{job_class}"


def parse_queue(name: str) -> tuple[str, JobClass] | None:
    """Return the endpoint's id and the class of a lane's queue, None for any other queue."""
    if not name.startswith(_PREFIX):
        return None
    inference_id, dot, job_class = name.removeprefix(_PREFIX).rpartition(".")
    if not dot or not inference_id or job_class not in JOB_CLASSES:
        return None
    return inference_id, job_class


def queue_key(key_prefix: str, queue: str) -> str:
    """Return the Redis key of a queue's list: kombu puts its ``global_keyprefix`` before the queue's name."""
    return key_prefix + queue
