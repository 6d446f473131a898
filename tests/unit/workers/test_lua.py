"""Scripts are joined of short parts, and constants stand once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.workers.lanes import constants
from penstock.workers.lua import INCLUDE, source

ROOT = Path(__file__).resolve().parents[3] / "workers"
SCRIPTS = sorted(ROOT.glob("*/lua/*.lua"))


def name(path: Path) -> str:
    return f"{path.parents[1].name}/{path.stem}"


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_each_part_is_in_a_script_once_and_after_those_that_it_includes(path: Path) -> None:
    text = source(name(path))
    assert text.count(path.read_text()) == 1
    for included in INCLUDE.findall(text):
        if not included.endswith(".py"):
            part = (ROOT / included.replace("/", "/lua/")).with_suffix(".lua").read_text()
            assert text.count(part) == 1
            assert text.index(part) < text.index(f"-- include: {included}\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_no_part_is_longer_than_a_reader_holds_in_mind(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 150


def test_numbers_of_python_stand_in_front_of_the_scripts() -> None:
    text = source("lanes/reserve")
    numbers = {key: value for key, value in vars(constants).items() if key.isupper() and isinstance(value, int)}
    assert numbers
    for key, value in numbers.items():
        assert re.findall(rf"local {key} = (.+)", text) == [str(value)]


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_only_one_part_reads_the_servers_clock_and_the_first_argument_stands_in_for_it(path: Path) -> None:
    text = path.read_text()
    if path.stem == "clock":
        assert "ARGV[1]" in text
    else:
        assert "'TIME'" not in text
        assert not re.search(r"ARGV\[1\](?! +clock)", text), "the clock's"
