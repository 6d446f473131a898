"""The demo's corpus: real, large enough, stable, and there whatever the Python's packaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.demo.corpus import Passage, standard_library


@pytest.fixture(scope="module")
def corpus() -> list[Passage]:
    return standard_library()


def test_it_has_some_thousands_of_passages_each_with_its_own_id(corpus: list[Passage]) -> None:
    assert len(corpus) > 2_000
    assert len({each.id for each in corpus}) == len(corpus)


def test_a_passage_is_named_as_users_name_it_and_says_how_it_is_called(corpus: list[Passage]) -> None:
    found = next(each for each in corpus if each.id == "zipfile.ZipFile.open")
    assert found.text.startswith("zipfile.ZipFile.open(self, name, ")
    assert "file-like object" in found.text


def test_private_names_and_test_suites_are_left_out(corpus: list[Passage]) -> None:
    assert not [each.id for each in corpus if any(part.startswith("_") for part in each.id.split("."))]
    assert not [each.id for each in corpus if each.id.split(".")[0] in {"test", "idlelib"}]


def test_two_readings_are_equal(corpus: list[Passage]) -> None:
    assert standard_library() == corpus


def test_without_sources_the_importable_modules_are_asked(folder: Path) -> None:
    found = standard_library(folder)
    assert len(found) > 500
    assert "zlib.crc32" in {each.id for each in found}


def test_sources_that_do_not_parse_are_passed_over(folder: Path) -> None:
    (folder / "csv.py").write_text("def broken(:\n")
    (folder / "json.py").write_bytes(b"\xff\xfe\x00")
    (folder / "bisect.py").write_text('"""Found."""\nif True:\n    def there(a, *, b=1):\n        """Also found."""\n')
    found = {each.id: each.text for each in standard_library(folder)}
    assert found["bisect"] == "bisect\nFound."
    assert found["bisect.there"] == "bisect.there(a, *, b=1)\nAlso found."
