"""``penstock embed``: one task, from texts to their vectors."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock.cli import output
from penstock.cli.call.stdin import read_text
from penstock.cli.call.task_client import task_client
from penstock.cli.options import InferenceId
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import InputInvalid
from penstock.config.names import EMBED_TASK
from penstock.workers.lanes.tokens import byte_length
from penstock.workers.results.types import EmbedResult

SHOWN = 4
"""Numbers of a vector that are shown."""
MOST_BYTES = 4_000_000


def command(
    inference_id: InferenceId,
    text: Annotated[
        str, typer.Argument(metavar="[TEXT|-]", help="The text; - is stdin, a text a line.", show_default=False)
    ] = "-",
    input_type: Annotated[
        str | None, typer.Option(help="search, ingest, classification or clustering, where the model cares.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, with whole vectors.")] = False,
) -> None:
    """Embed a text, or each line of stdin, and print the vectors. For more than a few, see `penstock backfill`."""
    texts = [text] if text != "-" else [line for line in read_text(text).splitlines() if line.strip()]
    if not texts or not any(each.strip() for each in texts):
        raise InputInvalid("there is nothing to embed: give a text, or lines on stdin")
    if sum(map(byte_length, texts)) > MOST_BYTES:
        raise InputInvalid(f"this is for up to {MOST_BYTES:,} bytes of text: use `penstock backfill`")
    with task_client(inference_id, (TaskType.TEXT_EMBEDDING,)) as found:
        overrides = {"input_type": input_type} if input_type else {}
        with output.err.status("embedding ..."):
            result: EmbedResult = found.wait(found.send(EMBED_TASK, texts, **overrides))
    if as_json:
        output.print_json(_document(result))
    else:
        _print(texts, result)
    if result.failures:
        raise typer.Exit(output.FAILED)


def _document(result: EmbedResult) -> dict[str, Any]:
    failed = {failure.index for failure in result.failures}
    return {
        "model": result.model,
        "dimensions": int(result.vectors.shape[1]),
        "vectors": [None if n in failed else row for n, row in enumerate(result.vectors)],
        "usage": vars(result.usage),
        "failures": [vars(failure) for failure in result.failures],
    }


def _print(texts: list[str], result: EmbedResult) -> None:
    failures = {failure.index: failure for failure in result.failures}
    rows = []
    for n, text in enumerate(texts):
        if n in failures:
            shown = f"{failures[n].code}: {failures[n].message}"
        else:
            numbers = ", ".join(f"{number:.5g}" for number in result.vectors[n][:SHOWN])
            shown = f"[{numbers}, ...]" if result.vectors.shape[1] > SHOWN else f"[{numbers}]"
        line = " ".join(text[:200].split())
        rows.append([n, line if len(line) <= 40 else line[:39] + "…", shown])
    output.print_table(["n", "text", "vector"], rows)
    dimensions = f"{result.vectors.shape[1]} dimensions"
    tokens = f"{result.usage.total_tokens} tokens" if result.usage.total_tokens else ""
    output.note(", ".join(part for part in (result.model, dimensions, tokens) if part), "dim")
