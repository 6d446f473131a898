"""What the demo says at its end: one dictionary for ``--json``, and the same for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from penstock.cli.demo.search import Hit, first_sentence

_WIDTH = 100


@dataclass(frozen=True)
class SearchAnswer:
    """What was found for a question."""

    question: str
    hits: Sequence[Hit]


def as_dictionary(
    report: Mapping[str, Any], served: Mapping[str, Any], answers: Sequence[SearchAnswer], out: Path, seconds: float
) -> dict[str, Any]:
    """Return all of it as data.

    Args:
        report: the backfill's.
        served: the stand-in's own count of what it was asked and answered.
        answers: to the questions.
        out: where the vectors are.
        seconds: for the whole demo.
    """
    counted = ("requests", "served", "statuses", "faults", "tokens", "texts_billed", "distinct_texts", "billed_again")
    return {
        "report": dict(report),
        "endpoint": {name: served[name] for name in counted},
        "answers": [asdict(answer) for answer in answers],
        "out": str(out),
        "files": sorted(path.name for path in out.iterdir() if not path.name.startswith(".")),
        "seconds": round(seconds, 1),
    }


def show_answers(console: Console, answers: Sequence[SearchAnswer]) -> None:
    """Print the nearest passages, a line each."""
    for answer in answers:
        names = max((len(hit.id) for hit in answer.hits), default=0)
        console.print(Text.assemble("\nnearest to ", (f"“{answer.question}”", "bold")))
        for hit in answer.hits:
            line = Text.assemble(
                f"  {hit.score:.2f}  ", (hit.id.ljust(names), "cyan"), "  ", (first_sentence(hit.text), "dim")
            )
            line.truncate(min(console.width, _WIDTH), overflow="ellipsis")
            console.print(line)


def show_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what happened, and what to try next."""
    report, billed = summary["report"], summary["endpoint"]["billed_again"]
    use = "" if report["quota_use"] is None else f", {100 * report['quota_use']:.0f} % of the quota"
    failed = "1 text refused, its neighbours kept"
    if report["failed"] != 1:
        failed = f"{report['failed']:,} texts failed where 1 should: see failed.jsonl"
    rows = [
        ("texts", f"{report['documents']:,} documents, {report['chunks']:,} chunks, {report['embedded']:,} vectors"),
        ("requests", f"{report['requests']:,} in {report['seconds']:.0f} s{use}; {report['rate_limited']:,} were 429"),
        ("faults", f"{report['retries']:,} requests repeated; {failed}"),
        ("paid twice", f"{report['possibly_billed_twice']:,} texts by our report, {billed:,} by the endpoint's count"),
        ("files", f"{', '.join(_grouped(summary['files']))} in"),
        ("", summary["out"]),
    ]
    console.print()
    show_facts(console, rows)
    console.print("\n[bold]Next[/], with an endpoint of your own (the README has a body for each service):")
    console.print("  penstock endpoint put text_embedding docs-embeddings --file openai.json", markup=False)
    console.print("  penstock backfill corpus.jsonl --endpoint docs-embeddings --out vectors/", markup=False)


def show_facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print labelled lines; a long one is left to the terminal to wrap, so that a path can be copied whole."""
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        console.print(Text.assemble((label.ljust(width), "bold"), "  ", text), soft_wrap=True)


def _grouped(files: Sequence[str]) -> list[str]:
    parts = [name for name in files if name.startswith("part-")]
    others = [name for name in files if not name.startswith("part-")]
    return [f"{len(parts)} part-*.parquet" if len(parts) > 1 else name for name in parts[:1]] + others
