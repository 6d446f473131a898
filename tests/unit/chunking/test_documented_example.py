"""The worked example of docs/chunking.md is what Python prints."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "chunking.md"


def test_the_worked_example_prints_what_the_document_says() -> None:
    example = doctest.DocTestParser().get_doctest(DOCUMENT.read_text(), {}, DOCUMENT.name, str(DOCUMENT), 0)
    assert len(example.examples) > 4
    report: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert outcome.failed == 0, "".join(report)
