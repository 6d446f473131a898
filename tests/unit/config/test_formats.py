"""Format numbers: what is older is read, what is newer is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config import formats
from penstock.config.errors import ConfigurationError, FormatTooNew
from penstock.config.formats import Format

THING = Format("the ledger {}", 3)


@pytest.mark.parametrize(("found", "number"), [(None, 1), (1, 1), (3, 3), ("7", 1), (True, 1), (2.5, 1)])
def test_what_carries_no_number_is_of_the_first_format(found: Any, number: int) -> None:
    assert THING.check(found, "a") == number


def test_what_is_newer_is_refused_with_its_name_both_formats_and_what_to_do() -> None:
    with pytest.raises(FormatTooNew) as caught:
        THING.check(4, "out/ledger.sqlite3")
    assert str(caught.value) == (
        "the ledger out/ledger.sqlite3 cannot be read: it is of format 4, and this Penstock reads formats up to 3. "
        "A newer version wrote it: upgrade this side"
    )
    assert (caught.value.code, caught.value.exit_code) == ("format_too_new", 2)
    assert str(FormatTooNew(*caught.value.args)) == str(caught.value), "as result back ends make errors again"
    assert isinstance(caught.value, ConfigurationError), "a backfill takes it for no verdict on its texts"


def test_every_kind_of_thing_that_outlives_a_process_has_a_number() -> None:
    kinds = {name: each.number for name, each in vars(formats).items() if isinstance(each, Format)}
    assert kinds == {"MESSAGE": 1, "RESULT": 2, "LEDGER": 2, "ENDPOINT_RECORD": 2, "IMAGE_RECORD": 2, "LANE": 2}
