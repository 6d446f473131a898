"""Names of a lane's keys in Redis. The braces keep a lane on one node of a cluster."""

from __future__ import annotations


def lane_key(prefix: str, quota: str) -> str:
    """Hash of a lane's shared state."""
    return f"{prefix}lane:{{{quota}}}"


def used_key(prefix: str, quota: str) -> str:
    """Hash of what the last minute used, by second."""
    return f"{prefix}lane:{{{quota}}}:used"


def flight_key(prefix: str, quota: str) -> str:
    """Sorted set of operations in flight."""
    return f"{prefix}lane:{{{quota}}}:flight"


def signal_channel(prefix: str) -> str:
    """Pub/sub channel on which a lane's cool-downs, parking and resuming are told to all workers."""
    return f"{prefix}lane-news"


def holder_key(prefix: str) -> str:
    """Hash of the messages in flight: delivery tag, queue."""
    return f"{prefix}in-flight"


def due_key(prefix: str) -> str:
    """Sorted set of messages set aside, by the time at which they are due."""
    return f"{prefix}due"


def due_messages_key(prefix: str) -> str:
    """Hash of the messages set aside."""
    return f"{prefix}due-messages"


def bell_key(prefix: str, queue: str) -> str:
    """List on which a worker with nothing to do waits for a queue; rung at each publication."""
    return f"{prefix}bell:{queue}"
