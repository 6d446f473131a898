"""The states of a lane: what each event makes of them, who may send, who gets an error. Tables, to be checked by eye.

``lua/state.lua`` and ``lua/lane.lua`` carry them out, atomically; a test drives the scripts through every cell.

**States.** A lane is *open* (requests go on its schedule), *cooling* (a time is set before which nothing goes),
*parked* (no request will succeed before a person has acted) or *probing* (one request asks whether that has happened).
Open and cooling are told apart by the clock alone. A parked or a probing lane may have a cool-down beside its state: it
waits for both, and the probe goes when the cool-down is over.

**The pause is a flag beside the state.** It belongs to a person and says nothing of the lane: the state goes on under
it (a cooling lane that is paused goes on cooling; answers to what was in flight still teach, cool and park), and only a
person ends it. Both reasons are kept; while a lane is paused, the pause's is shown.

**Why each arrow is there.**

``REFUSED`` (a 429 of the current cool-down's number; later ones are stale)
    An open lane cools, for all workers at once; a cooling one (its refused request was sent before the time was set
    by failures) goes on cooling, until the later of the two times. A parked lane stays parked: answers to what was in
    flight prove nothing. A probing lane stays probing: a refusal for pace is no verdict on what it was parked for; its
    next probe waits for the cool-down.
``RESTED`` (many attempts in a row that got no good answer)
    As ``REFUSED``: the lane rests.
``COOLED`` (the clock has reached the time)
    A cooling lane opens. It ends no other state.
``SUCCEEDED`` (a good answer)
    The probe has gone through: the lane opens. In a cooling lane it answers what was sent before, and a parked lane may
    hear of such, too: they change nothing.
``PARKED`` (the provider refuses all work until somebody acts)
    From every state: it outlasts a cool-down, and a probe that meets it ends the probing. Parked again, a lane keeps
    the newer reason.
``RESUMED`` (a person resumes a lane that is not paused)
    A person knows better: a cool-down ends. A parked lane is not opened but probed: the person may be wrong, and one
    request costs less than a storm of refusals. A probing lane may send another probe at once.
``UNPAUSED`` (a person resumes a lane that is paused)
    The pause ends and the state goes on: a cooling lane still cools, for the person meant the pause and the server's
    word stands. But a parked or probing lane starts probing, as by ``RESUMED``: nobody should have to resume twice.
``ENDPOINT_CHANGED`` (the endpoint that parked the lane was put again)
    The change may be the cure (a new key), so one request asks. It says nothing of cool-downs, and ends no pause.
``PAUSED`` (a person pauses)
    Sets the flag; no arrow leaves its state.

**What comes.** A state ``closed`` (nobody is answered; one probe at a time asks) joins as one more row of each table;
``SUCCEEDED`` alone will lead out of it.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a lane is doing, pauses apart."""

    OPEN = "open"
    COOLING = "cooling"
    PARKED = "parked"
    PROBING = "probing"


class LaneEvent(StrEnum):
    """What happens to a lane."""

    REFUSED = "refused"
    RESTED = "rested"
    COOLED = "cooled"
    SUCCEEDED = "succeeded"
    PARKED = "parked"
    RESUMED = "resumed"
    UNPAUSED = "unpaused"
    ENDPOINT_CHANGED = "endpoint_changed"
    PAUSED = "paused"


class Sender(StrEnum):
    """Who wants to send: requests of a class, or the poll of an operation that was submitted, and paid for, before."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    POLL = "poll"


class Permission(StrEnum):
    """Whether a sender may send: everybody, one request at a time, or nobody."""

    ALL = "all"
    ONE = "one"
    NONE = "none"


TRANSITIONS: dict[State, dict[LaneEvent, State]] = {
    State.OPEN: {
        LaneEvent.REFUSED: State.COOLING,
        LaneEvent.RESTED: State.COOLING,
        LaneEvent.COOLED: State.OPEN,
        LaneEvent.SUCCEEDED: State.OPEN,
        LaneEvent.PARKED: State.PARKED,
        LaneEvent.RESUMED: State.OPEN,
        LaneEvent.UNPAUSED: State.OPEN,
        LaneEvent.ENDPOINT_CHANGED: State.OPEN,
        LaneEvent.PAUSED: State.OPEN,
    },
    State.COOLING: {
        LaneEvent.REFUSED: State.COOLING,
        LaneEvent.RESTED: State.COOLING,
        LaneEvent.COOLED: State.OPEN,
        LaneEvent.SUCCEEDED: State.COOLING,
        LaneEvent.PARKED: State.PARKED,
        LaneEvent.RESUMED: State.OPEN,
        LaneEvent.UNPAUSED: State.COOLING,
        LaneEvent.ENDPOINT_CHANGED: State.COOLING,
        LaneEvent.PAUSED: State.COOLING,
    },
    State.PARKED: {
        LaneEvent.REFUSED: State.PARKED,
        LaneEvent.RESTED: State.PARKED,
        LaneEvent.COOLED: State.PARKED,
        LaneEvent.SUCCEEDED: State.PARKED,
        LaneEvent.PARKED: State.PARKED,
        LaneEvent.RESUMED: State.PROBING,
        LaneEvent.UNPAUSED: State.PROBING,
        LaneEvent.ENDPOINT_CHANGED: State.PROBING,
        LaneEvent.PAUSED: State.PARKED,
    },
    State.PROBING: {
        LaneEvent.REFUSED: State.PROBING,
        LaneEvent.RESTED: State.PROBING,
        LaneEvent.COOLED: State.PROBING,
        LaneEvent.SUCCEEDED: State.OPEN,
        LaneEvent.PARKED: State.PARKED,
        LaneEvent.RESUMED: State.PROBING,
        LaneEvent.UNPAUSED: State.PROBING,
        LaneEvent.ENDPOINT_CHANGED: State.PROBING,
        LaneEvent.PAUSED: State.PROBING,
    },
}

#: Who may send. Polls always may: what they ask for is paid for, and a provider counts them apart.
MAY_SEND: dict[State, dict[Sender, Permission]] = {
    State.OPEN: {Sender.INTERACTIVE: Permission.ALL, Sender.BULK: Permission.ALL, Sender.POLL: Permission.ALL},
    State.COOLING: {Sender.INTERACTIVE: Permission.NONE, Sender.BULK: Permission.NONE, Sender.POLL: Permission.ALL},
    State.PARKED: {Sender.INTERACTIVE: Permission.NONE, Sender.BULK: Permission.NONE, Sender.POLL: Permission.ALL},
    State.PROBING: {Sender.INTERACTIVE: Permission.ONE, Sender.BULK: Permission.ONE, Sender.POLL: Permission.ALL},
}

#: The same while a person has paused the lane, whatever its state.
MAY_SEND_PAUSED: dict[Sender, Permission] = {
    Sender.INTERACTIVE: Permission.NONE,
    Sender.BULK: Permission.NONE,
    Sender.POLL: Permission.ALL,
}

#: Who gets an error at once (``LaneParked``), instead of waiting: a web request is not to hang until a person has
#: acted. Bulk waits; what cools or is probed is over soon; and under a pause all wait, for it was made on purpose.
FAILS_AT_ONCE: dict[State, frozenset[Sender]] = {
    State.OPEN: frozenset(),
    State.COOLING: frozenset(),
    State.PARKED: frozenset({Sender.INTERACTIVE}),
    State.PROBING: frozenset(),
}

#: Events that are signalled to all workers, over pub/sub. They find out the others when they next ask: time is on every
#: clock, and a lane that opens is asked at least twice a second.
SIGNALLED = frozenset(LaneEvent) - {LaneEvent.COOLED, LaneEvent.SUCCEEDED}


def may_send(state: State, sender: Sender, *, paused: bool) -> Permission:
    """Return whether a sender may send."""
    return (MAY_SEND_PAUSED if paused else MAY_SEND[state])[sender]


def fails_at_once(state: State, sender: Sender, *, paused: bool) -> bool:
    """Return whether a sender gets an error at once, and does not wait."""
    return not paused and sender in FAILS_AT_ONCE[state]
