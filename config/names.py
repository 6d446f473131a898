"""Every name that processes find one another by: tasks, queues, and keys in Redis. Nowhere else is one spelt out.

Messages and results that an older version wrote are found by these names: a value once released stays as it is.

``KEYS`` is the table of all keys that this project, Celery and kombu write: what each is, who writes it, how it ends.
``find_key`` tells which entry a key belongs to, so that a test can see whether anything is left behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from string import Formatter
from typing import Literal

# Tasks ----------------------------------------------------------------------------------------------

EMBED_TASK = "penstock.embed"
COMPLETE_TASK = "penstock.complete"
IMAGE_TASK = "penstock.generate_image"
CHUNK_TASK = "penstock.chunk"

#: All of ours.
TASKS = frozenset({EMBED_TASK, COMPLETE_TASK, IMAGE_TASK, CHUNK_TASK})
#: Tasks that an endpoint's lane paces; chunking has no lane.
LANE_TASKS = frozenset({EMBED_TASK, COMPLETE_TASK, IMAGE_TASK})

# Queues ---------------------------------------------------------------------------------------------

JobClass = Literal["interactive", "bulk"]

INTERACTIVE: JobClass = "interactive"
BULK: JobClass = "bulk"
JOB_CLASSES: tuple[JobClass, ...] = (INTERACTIVE, BULK)

DEFAULT_QUEUE = "penstock"
CHUNK_QUEUE = "penstock.chunk"
#: The queue of another Celery app that has not been told otherwise.
OTHERS_QUEUE = "celery"

#: What the names of lanes' queues begin with.
LANE_QUEUES = "penstock."
_OPERATIONS = ".operations"
_SUSPECTS = ":suspects"
#: The class of queues of suspects, in the index of queues with work.
SUSPECTS_CLASS = "suspects"


def queue_name(inference_id: str, job_class: JobClass = INTERACTIVE) -> str:
    """Return the queue of an endpoint's lane for one class of jobs.

    This is Celery's name; the list in Redis has ``Settings.key_prefix`` before it (see ``queue_key``).
    """
    return f"{LANE_QUEUES}{inference_id}.{job_class}"


def operations_queue(inference_id: str) -> str:
    """Return the queue on which the polls of an endpoint's operations come back; it passes the lane's gate."""
    return f"{LANE_QUEUES}{inference_id}{_OPERATIONS}"


def suspects_queue(name: str) -> str:
    """Return the queue beside another on which its suspects wait, messages that are run alone (see ``SUSPECTS``)."""
    return name + _SUSPECTS


def origin_queue(name: str) -> str:
    """Return the queue that suspects come from; of any other queue its own name."""
    return name.removesuffix(_SUSPECTS)


def parse_queue(name: str) -> tuple[str, JobClass] | None:
    """Return the endpoint's id and the class of a lane's queue, None for any other queue."""
    if not name.startswith(LANE_QUEUES):
        return None
    inference_id, dot, job_class = name.removeprefix(LANE_QUEUES).rpartition(".")
    if not dot or not inference_id or job_class not in JOB_CLASSES:
        return None
    return inference_id, job_class


def is_own_queue(name: object) -> bool:
    """Whether a queue is one of ours, by its name without the prefix."""
    return isinstance(name, str) and (name == DEFAULT_QUEUE or name.startswith(LANE_QUEUES))


# Folders --------------------------------------------------------------------------------------------

#: Folder of logs under ``Settings.home``.
LOGS = "logs"

# Keys -----------------------------------------------------------------------------------------------

#: What Celery puts before a task's id to find its result. No prefix comes before it where another app sent the task.
RESULTS = "celery-task-meta-"

KeyKind = Literal["string", "hash", "list", "set", "sorted set", "stream", "channel"]
KeyEnd = Literal["expires", "emptied", "kept", "either"]


@dataclass(frozen=True)
class KeyName:
    """A key in Redis, or a family of them.

    Args:
        pattern: the name after ``Settings.key_prefix``, with its parts as in ``str.format``.
        kind: Redis' type; ``channel`` is a pub/sub channel, which stores nothing.
        end: ``expires`` (every write sets a time to live), ``emptied`` (no expiry; it is gone once the work that it
            stands for is done), ``kept`` (no expiry; it stays) or ``either`` (as ``holds`` says).
        writer: who writes it.
        holds: what is in it.
    """

    pattern: str
    kind: KeyKind
    end: KeyEnd
    writer: str
    holds: str

    @property
    def expires(self) -> bool:
        """Whether it always has a time to live."""
        return self.end == "expires"

    def name(self, prefix: str, **parts: str) -> str:
        """Return the whole key."""
        return prefix + self.pattern.format(**parts)


QUEUE = KeyName("penstock.{endpoint}.{job_class}", "list", "emptied", "publishers", "messages that wait for their lane")
OPERATIONS_QUEUE = KeyName(
    "penstock.{endpoint}" + _OPERATIONS, "list", "emptied", "workers", "messages whose operation is to be polled now"
)
SUSPECTS = KeyName(
    "{queue}" + _SUSPECTS, "list", "emptied", "workers", "messages in flight at two deaths of their workers"
)
CHUNKS = KeyName(CHUNK_QUEUE, "list", "emptied", "publishers", "messages of the chunk task")
DEFAULT = KeyName(DEFAULT_QUEUE, "list", "emptied", "publishers", "messages of tasks without an endpoint")
UNACKED = KeyName("unacked", "hash", "emptied", "workers (take.lua)", "delivery tag: message in flight, as kombu's")
UNACKED_INDEX = KeyName(
    "unacked_index",
    "sorted set",
    "emptied",
    "workers (take.lua, renew.lua)",
    "delivery tags by their lease's renewal, s",
)
HOLDERS = KeyName("in-flight", "hash", "emptied", "workers (take.lua)", "delivery tag: the queue that it came from")
DUE = KeyName("due", "sorted set", "emptied", "workers (set_aside.lua)", '"tag queue" by when it is due, ms')
DUE_MESSAGES = KeyName("due-messages", "hash", "emptied", "workers (set_aside.lua)", '"tag queue": message set aside')
BELL = KeyName("bell:{queue}", "list", "expires", "publishers, who puts one back", "a mark for each new message")

COMMON_BELL = KeyName(
    "bell", "list", "expires", "publishers, and who puts a message back", "a mark for each new message"
)
WORK = KeyName(
    "work:{job_class}", "sorted set", "emptied", "publishers, workers", "queues that hold messages, by when, ms"
)
QUOTAS = KeyName("quotas", "hash", "kept", "workers", "inference id: name of the quota that its lane is")
SWEEP = KeyName("sweep", "string", "expires", "workers (turn.lua)", "when one last looked for messages without a ring")
UNKNOWN_SWEEP = KeyName(
    "unknown-sweep", "string", "expires", "workers (turn.lua)", "when one last looked for queues of unknown endpoints"
)
DEAD_MESSAGES = KeyName(
    "dead-messages", "list", "expires", "workers", "messages that no worker can read or survives, with the reason"
)
COMPLETED = KeyName("completed", "string", "expires", "workers", "how many messages have ended")
SUSPECTS_TURN = KeyName("suspects-turn", "string", "expires", "workers", "the process that runs suspects now")

# The braces are part of the released names and do nothing: no cluster is served.
LANE = KeyName(
    "lane:{{{quota}}}",
    "hash",
    "either",
    "workers, commands (lanes/lua)",
    "a lane's state, for 30 days unless it is parked or paused",
)
LANE_USED = KeyName(
    "lane:{{{quota}}}:used", "hash", "expires", "workers (lanes/lua)", "the last minute's use, by second"
)
LANE_FLIGHT = KeyName(
    "lane:{{{quota}}}:flight",
    "sorted set",
    "emptied",
    "workers (lanes/lua)",
    "operations by when they count as gone, ms",
)
LANE_SIGNALS = KeyName(
    "lane-news", "channel", "kept", "workers, commands (lanes/lua)", "the key of a lane that has changed, as it changes"
)

ENDPOINTS = KeyName("endpoints", "hash", "kept", "the registry", "inference id: JSON record, its secrets encrypted")
ENDPOINTS_VERSION = KeyName("endpoints:version", "string", "kept", "the registry", "a mark, new at each put and delete")
ENDPOINTS_SALT = KeyName(
    "endpoints:salt", "string", "kept", "the registry", "random text under which accounts are hashed"
)
ANNOUNCED = KeyName(
    "announced",
    "sorted set",
    "expires",
    "workers (announce.lua)",
    'ids of endpoints files, and "" for the worker itself, by when they were last announced, ms',
)

HANDED_BACK = KeyName(
    "handed-back:{task}", "string", "expires", "workers", "what a task had cost when it was handed back"
)
PROGRESS = KeyName("progress:{task}", "hash", "expires", "workers", "vectors and costs of an embed task not yet done")
IMAGE = KeyName("image:{task}", "hash", "expires", "workers", "an image task's operation, and its result")
STREAM = KeyName("stream:{task}", "stream", "expires", "workers", "the deltas of a streamed completion")

#: kombu's names for messages that it has taken itself (none of a lane's), as its transport options.
KOMBU_UNACKED = {
    "unacked_key": "kombu-unacked",
    "unacked_index_key": "kombu-unacked-index",
    "unacked_mutex_key": "kombu-unacked-mutex",
}

KEYS: tuple[KeyName, ...] = (
    SUSPECTS, OPERATIONS_QUEUE, QUEUE, CHUNKS, DEFAULT, UNACKED, UNACKED_INDEX, HOLDERS, DUE, DUE_MESSAGES,
    COMMON_BELL, BELL, WORK, QUOTAS, SWEEP, UNKNOWN_SWEEP, DEAD_MESSAGES, COMPLETED, SUSPECTS_TURN,
    LANE_USED, LANE_FLIGHT, LANE, LANE_SIGNALS, ENDPOINTS, ENDPOINTS_VERSION, ENDPOINTS_SALT, ANNOUNCED,
    HANDED_BACK, PROGRESS, IMAGE, STREAM,
    # Celery's and kombu's own.
    KeyName(f"{RESULTS}{{task}}", "string", "expires", "workers (Celery)", "a task's state and result"),
    KeyName("celery-taskset-meta-{group}.j", "sorted set", "expires", "workers (Celery)", "a chord's results so far"),
    KeyName("celery-taskset-meta-{group}.d", "set", "expires", "workers (Celery)", "which of its tasks are counted"),
    *(
        KeyName(f"celery-taskset-meta-{{group}}.{part}", "string", "expires", "publishers, workers (Celery)", what)
        for part, what in {"s": "a chord's size", "t": "its count", "c": "who calls its body"}.items()
    ),
    KeyName("celery-taskset-meta-{group}", "string", "expires", "publishers (Celery)", "a saved group"),
    KeyName("_kombu.binding.{exchange}", "set", "kept", "all (kombu)", "the queues of an exchange"),
    KeyName("_kombu.binding_permanent.{exchange}", "set", "kept", "all (kombu)", "those of them that do not expire"),
    KeyName("_kombu.binding_deadlines", "sorted set", "kept", "all (kombu)", "exchanges by when they are swept, ms"),
    KeyName("kombu-unacked", "hash", "emptied", "workers (kombu)", "messages that kombu itself has taken"),
    KeyName("kombu-unacked-index", "sorted set", "emptied", "workers (kombu)", "when it took them"),
    KeyName("kombu-unacked-mutex", "string", "expires", "workers (kombu)", "who restores them now"),
    KeyName("{process}.reply.celery.pidbox", "list", "emptied", "workers (Celery)", "answers to a control command"),
)  # fmt: skip
"""All of them; of entries that a key fits, the first is its own."""


def find_key(prefix: str, key: str) -> KeyName | None:
    """Return the entry that a key belongs to, None for a key that nobody has named."""
    if not key.startswith(prefix):
        return None
    rest = key.removeprefix(prefix)
    return next((each for each in KEYS if _expression(each.pattern).fullmatch(rest)), None)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = (re.escape(text) + (".+" if field is not None else "") for text, field, *_ in Formatter().parse(pattern))
    return re.compile("".join(parts), re.DOTALL)


def queue_key(prefix: str, queue: str) -> str:
    """Return the Redis key of a queue's list: kombu puts its ``global_keyprefix`` before the queue's name."""
    return prefix + queue


def bell_key(prefix: str, queue: str) -> str:
    """Return the list on which a worker with nothing to do waits for a queue (``BELL``)."""
    return BELL.name(prefix, queue=queue)


def common_bell_key(prefix: str) -> str:
    """Return the list on which workers of all lanes wait when they have nothing to do (``COMMON_BELL``)."""
    return COMMON_BELL.name(prefix)


def work_key(prefix: str, job_class: str) -> str:
    """Return the index of queues with work of one class, or of those with suspects (``WORK``)."""
    return WORK.name(prefix, job_class=job_class)


def endpoint_quotas_key(prefix: str) -> str:
    """Return the hash that tells the quota of an endpoint (``QUOTAS``)."""
    return QUOTAS.name(prefix)


def sweep_key(prefix: str) -> str:
    """Return the key of the worker that looks for unrung messages now (``SWEEP``)."""
    return SWEEP.name(prefix)


def unknown_sweep_key(prefix: str) -> str:
    """Return the key of the worker that looks for queues of unknown endpoints now (``UNKNOWN_SWEEP``)."""
    return UNKNOWN_SWEEP.name(prefix)


def announced_key(prefix: str) -> str:
    """Return the sorted set of what workers announce (``ANNOUNCED``)."""
    return ANNOUNCED.name(prefix)


def dead_messages_key(prefix: str) -> str:
    """Return the list of messages that no worker can read or survives (``DEAD_MESSAGES``)."""
    return DEAD_MESSAGES.name(prefix)


def completed_key(prefix: str) -> str:
    """Return the count of messages that have ended (``COMPLETED``)."""
    return COMPLETED.name(prefix)


def suspects_turn_key(prefix: str) -> str:
    """Return the key of the process that runs suspects now (``SUSPECTS_TURN``)."""
    return SUSPECTS_TURN.name(prefix)


def unacked_key(prefix: str) -> str:
    """Return the hash of messages in flight (``UNACKED``)."""
    return UNACKED.name(prefix)


def unacked_index_key(prefix: str) -> str:
    """Return the sorted set of leases (``UNACKED_INDEX``)."""
    return UNACKED_INDEX.name(prefix)


def holder_key(prefix: str) -> str:
    """Return the hash that says which queue a message in flight came from (``HOLDERS``)."""
    return HOLDERS.name(prefix)


def due_key(prefix: str) -> str:
    """Return the sorted set of messages set aside (``DUE``)."""
    return DUE.name(prefix)


def due_messages_key(prefix: str) -> str:
    """Return the hash of messages set aside (``DUE_MESSAGES``)."""
    return DUE_MESSAGES.name(prefix)


def lane_key(prefix: str, quota: str) -> str:
    """Return the hash of a lane's shared state (``LANE``)."""
    return LANE.name(prefix, quota=quota)


def used_key(prefix: str, quota: str) -> str:
    """Return the hash of what a lane's last minute used (``LANE_USED``)."""
    return LANE_USED.name(prefix, quota=quota)


def flight_key(prefix: str, quota: str) -> str:
    """Return the sorted set of a lane's operations in flight (``LANE_FLIGHT``)."""
    return LANE_FLIGHT.name(prefix, quota=quota)


def signal_channel(prefix: str) -> str:
    """Return the pub/sub channel on which workers hear that a lane has changed (``LANE_SIGNALS``)."""
    return LANE_SIGNALS.name(prefix)


def endpoints_key(prefix: str) -> str:
    """Return the hash of endpoints (``ENDPOINTS``)."""
    return ENDPOINTS.name(prefix)


def endpoints_version_key(prefix: str) -> str:
    """Return the key of the mark that changes with any endpoint (``ENDPOINTS_VERSION``)."""
    return ENDPOINTS_VERSION.name(prefix)


def endpoints_salt_key(prefix: str) -> str:
    """Return the key of the registry's salt (``ENDPOINTS_SALT``)."""
    return ENDPOINTS_SALT.name(prefix)


def handed_back_key(prefix: str, task_id: str) -> str:
    """Return the key of what a task had cost when it was handed back (``HANDED_BACK``)."""
    return HANDED_BACK.name(prefix, task=task_id)


def progress_key(prefix: str, task_id: str) -> str:
    """Return the key of an embed task's progress (``PROGRESS``)."""
    return PROGRESS.name(prefix, task=task_id)


def image_key(prefix: str, task_id: str) -> str:
    """Return the key of an image task's record (``IMAGE``)."""
    return IMAGE.name(prefix, task=task_id)


def stream_key(prefix: str, task_id: str) -> str:
    """Return the key of a completion's stream (``STREAM``)."""
    return STREAM.name(prefix, task=task_id)
