"""What became of the workers that had a message in flight: counted in its own headers, so that both are never apart.

A message that is in flight when its worker dies may be what killed it, or a neighbour of that, or there by chance (out
of memory, a bad deploy). At the second death it is a suspect: from then on it is run alone, in a process that runs
nothing else (``suspects``). Alone it has no neighbours; and while other messages complete, workers are not at fault.
So one whose worker dies three times running, alone, while others complete, is what kills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The header in which a message carries them.
HEADER = "penstock-deaths"
#: Deaths at which a message is a suspect, and deaths alone at which it is what kills its worker.
SUSPECT_AT, CONVICTED_AT = 2, 3


@dataclass(frozen=True)
class Deaths:
    """The deaths of workers that had a message in flight.

    Args:
        among: while other messages may have been in flight beside it.
        alone: while it was run alone, and others completed meanwhile.
        completed: how many messages the broker had seen complete at the last of them.
    """

    among: int = 0
    alone: int = 0
    completed: int = 0

    @property
    def suspect(self) -> bool:
        """Whether the message is to be run alone."""
        return self.among >= SUSPECT_AT

    @property
    def convicted(self) -> bool:
        """Whether it is the message that kills its workers."""
        return self.alone >= CONVICTED_AT

    def one_more(self, *, alone: bool, completed: int) -> Deaths:
        """Return them with another death: while the message was run ``alone``, after so many had ``completed``."""
        if not alone:
            return Deaths(self.among + 1, self.alone, completed)
        return Deaths(self.among, self.alone + (completed > self.completed), completed)

    def write(self, headers: dict[str, Any]) -> None:
        """Write them down in a message's headers."""
        headers[HEADER] = [self.among, self.alone, self.completed]


def deaths_of(headers: Mapping[str, Any]) -> Deaths:
    """Read them from a message's headers; of a header that cannot be read there were none."""
    counts = headers.get(HEADER)
    if isinstance(counts, list) and len(counts) == 3 and all(isinstance(each, int) for each in counts):
        return Deaths(*counts)
    return Deaths()
