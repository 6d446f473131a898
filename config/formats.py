"""Format numbers of all that outlives a process and meets another version: messages, results, ledgers, records, lanes.

Whatever carries no number is of format 1: the release before there were numbers wrote it. An older format is read; a
newer one is refused by name, for what it means cannot be known here. A number goes up when an older reader would
misread what is written, and the reader then says here what it was.

=========  ======  =============================================================
kind       format  what changed
=========  ======  =============================================================
message    1
result     2       the header is msgpack under a checksum; it was JSON
ledger     2       failed rows of a finished job may be on their way again
endpoint   2       the token of the secrets is ``encrypted``; it was ``sealed``
lane       2       fields have whole names, and a pause is a flag beside the state
image      2       how far it is, is its ``phase``; it was its ``stage``
=========  ======  =============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from penstock.config.errors import FormatTooNew

#: The first bytes of a stored result.
RESULT_MAGIC = b"PSR"

FIRST: Final = 1


@dataclass(frozen=True)
class Format:
    """A kind of thing that is stored or sent.

    Args:
        thing: what it is called in errors, ``{}`` standing for its name.
        number: the format that this version writes, and the newest that it reads.
    """

    thing: str
    number: int

    def check(self, found: Any, name: str = "") -> int:
        """Return the format of something: ``found``, or the first where it carries no number.

        Raises:
            FormatTooNew: a newer version wrote it.
        """
        number = found if isinstance(found, int) and not isinstance(found, bool) else FIRST
        if number > self.number:
            raise FormatTooNew(self.thing.format(name), number, self.number)
        return number


MESSAGE = Format("the message of task {}", 1)
RESULT = Format("a stored result", 2)
LEDGER = Format("the ledger {}", 2)
ENDPOINT_RECORD = Format("the record of endpoint [{}]", 2)
LANE = Format("lane {}", 2)
IMAGE_RECORD = Format("the record of image task {}", 2)
LANE = Format("lane {}", 2)

#: Header of a task's message, and field of a ledger, a record and a lane, that holds the number.
MESSAGE_HEADER: Final = "penstock_format"
FIELD: Final = "format"
