"""Every error that Penstock raises, at the bottom of the import graph.

::

    PenstockError
    ├── ConfigurationError      a setting, file or folder is wrong              (exit code 2)
    │   ├── EndpointInvalid     an endpoint's body breaks the rules; all faults together
    │   ├── EndpointNotFound    no endpoint has this id
    │   ├── WrongTaskType       the endpoint does another kind of work
    │   ├── BrokerUnavailable   the broker cannot be reached or started
    │   └── FormatTooNew        a newer version wrote this message, result, ledger, record or lane
    ├── InputInvalid            what a caller passed cannot be sent
    ├── MessageUnreadable       a task's message reached no task; it is kept for an operator
    ├── MessageKillsWorkers     a task's message ended one worker after another; it is kept for an operator
    ├── JobError                a backfill cannot start or go on
    └── InferenceFailed         the service's final "no" for a whole call
        ├── LaneParked          the lane is parked: an operator must act, then ``penstock lane resume``
        └── CutStream           a stream ended before its end; carries what had come

A message says what is wrong, names the field, and says what to do next. No message carries a secret.
"""

from __future__ import annotations

from collections.abc import Sequence


class PenstockError(Exception):
    """Base of all. ``code`` is stable and machine-readable, in snake_case."""

    code = "penstock_error"
    exit_code = 1


class ConfigurationError(PenstockError):
    """A setting, file or folder is wrong; nothing was done."""

    code = "configuration"
    exit_code = 2


class EndpointInvalid(ConfigurationError):
    """An endpoint's body breaks the rules. ``faults`` holds every message, in the order of the body."""

    code = "endpoint_invalid"

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)  # result back ends make errors again from their ``args``

    def __str__(self) -> str:
        return "Validation Failed: " + "".join(f"{n}: {text};" for n, text in enumerate(self.faults, 1))


class EndpointNotFound(ConfigurationError):
    """No endpoint has this id."""

    code = "endpoint_not_found"


class WrongTaskType(ConfigurationError):
    """The endpoint does another kind of work than was asked of it."""

    code = "wrong_task_type"


class BrokerUnavailable(ConfigurationError):
    """The broker cannot be reached, or an embedded one cannot be started here."""

    code = "broker_unavailable"


class FormatTooNew(ConfigurationError):
    """A newer version wrote it, and this one cannot know what it means.

    Args:
        thing: what it is: a message, a result, a ledger, a record or a lane, by name.
        found: its format.
        known: the newest format that this version reads.
    """

    code = "format_too_new"

    def __init__(self, thing: str, found: int, known: int) -> None:
        super().__init__(thing, found, known)  # result back ends make errors again from their ``args``
        self.thing, self.found, self.known = thing, found, known

    def __str__(self) -> str:
        return (
            f"{self.thing} cannot be read: it is of format {self.found}, and this Penstock reads formats up to "
            f"{self.known}. A newer version wrote it: upgrade this side"
        )


class InputInvalid(PenstockError):
    """What a caller passed cannot be sent: it is wrong before any request is made."""

    code = "input_invalid"
    exit_code = 2


class MessageUnreadable(PenstockError):
    """No worker can read a task's message: cut, of wrong types, or of a content type that is not taken.

    It is kept: ``penstock lane dead ID`` shows it, puts it back or drops it.
    """

    code = "message_unreadable"


class MessageKillsWorkers(PenstockError):
    """A task's message ended three workers running, each of which ran nothing else, while other messages completed.

    It is kept: ``penstock lane dead ID`` shows it, puts it back or drops it.
    """

    code = "message_kills_workers"


class JobError(PenstockError):
    """A backfill cannot start or go on; what it had done is kept."""

    code = "job"
    exit_code = 2


class InferenceFailed(PenstockError):
    """The service's final "no" for a whole call.

    Args:
        message: what happened and what to do next.
        code: the stable code, as in a dead letter (``content_filter``, ``server_error`` ...).
        status: the HTTP status, if there was an answer.
        attempts: how many requests were made.
    """

    code = "inference_failed"

    def __init__(self, message: str, code: str = "inference_failed", status: int | None = None, attempts: int = 0):
        super().__init__(message, code, status, attempts)
        self.code, self.status, self.attempts = code, status, attempts

    def __str__(self) -> str:
        return str(self.args[0])


class LaneParked(InferenceFailed):
    """The lane is parked: an operator must act, then ``penstock lane resume ID``."""


class CutStream(InferenceFailed):
    """A stream ended before its end. ``args[4]``, ``partial``, is the text that had come."""

    def __init__(
        self, message: str, code: str = "stream_cut", status: int | None = None, attempts: int = 0, partial: str = ""
    ):
        super().__init__(message, code, status, attempts)
        self.args = (message, code, status, attempts, partial)
        self.partial = partial

    def __repr__(self) -> str:
        return f"CutStream({self.args[0]!r}, {self.code!r}, {len(self.partial)} characters)"  # logs show no text
