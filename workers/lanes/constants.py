"""Numbers that Python and Lua share: ``workers/lua.py`` puts them in front of the scripts. No others are here."""

from __future__ import annotations

from penstock.config.formats import LANE

#: The format of a lane's hash in Redis. A higher one was written by a newer version.
FORMAT = LANE.number

#: After a refusal a learnt limit comes near the estimate of the server's own within so many seconds.
RISE_S = 12

#: A measurement of what the server accepts takes so many milliseconds at least.
ENOUGH_MS = 4000
