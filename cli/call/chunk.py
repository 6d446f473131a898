"""``penstock chunk``: one text to its chunks.

The text is split in this process by the task's own code: that needs no worker, and a broker only to find the endpoint.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock.cli import output
from penstock.cli.call.stdin import read_text
from penstock.cli.options import AsJson, InferenceId
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.config.urls import state_url

EXCERPT = 60
"""Characters of a chunk that the table shows."""


def command(
    inference_id: InferenceId,
    text: Annotated[str, typer.Argument(metavar="[TEXT|-]", help="The text; - is stdin.", show_default=False)] = "-",
    as_json: AsJson = False,
) -> None:
    """Split a text by an endpoint's chunking settings: what `chunk(text, ID)` returns, without a worker.

    Offsets count characters; words are counted as the chunking settings count them.
    """
    content = read_text(text)
    from penstock.tasks.chunking.task import split

    chunks = split(content, _find(inference_id))
    if as_json:
        output.print_json(chunks)
    else:
        output.print_table(["n", "start", "end", "words", "text"], [_row(n, each) for n, each in enumerate(chunks)])


def _find(inference_id: str) -> Endpoint:
    """Look the endpoint up. Its key is not needed, so its secrets stay encrypted."""
    from penstock.workers.embedded.broker import broker

    settings = load_settings()
    with broker(settings) as urls, connect(state_url(urls.broker, urls.results)) as client:
        return Registry(client, settings).find(inference_id)


def _row(number: int, chunk: dict[str, Any]) -> list[Any]:
    from penstock.tasks.chunking import count_words

    return [number, chunk["start"], chunk["end"], count_words(chunk["text"]), _excerpt(chunk["text"])]


def _excerpt(text: str) -> str:
    line = " ".join(text[: 4 * EXCERPT].split())
    return line if len(line) <= EXCERPT and len(text) <= 4 * EXCERPT else line[: EXCERPT - 1].rstrip() + "…"
