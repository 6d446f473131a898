"""``penstock demo``: a real corpus to vectors on this machine, through everything that the project is."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from penstock.cli import output
from penstock.cli.backfill.view import shown
from penstock.cli.demo.corpus import Passage, standard_library
from penstock.cli.demo.environment import (
    ENDPOINT,
    PROCESSES,
    REQUESTS,
    TOKENS,
    DemoEnvironment,
    demo_environment,
    own_home,
)
from penstock.cli.demo.search import Passages
from penstock.cli.demo.summary import SearchAnswer, as_dictionary, show_answers, show_facts, show_summary
from penstock.config.endpoints.registry import Registry
from penstock.config.errors import InputInvalid
from penstock.config.names import BULK, queue_name
from penstock.config.redis import connect
from penstock.tasks.backfill.dispatch.pending import PendingMessages
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.run import RunContext, run_backfill
from penstock.tasks.backfill.sources import open_source

QUESTIONS = ("read a zip archive", "wait for a coroutine with a timeout", "convert a date to ISO format")
HITS = 3
ANSWER_S = 30.0
# A text that the endpoint's content filter always refuses, to show what becomes of it and of its neighbours.
REFUSED = Passage("demo.refused", "demo.refused\nThe stand-in's content filter refuses this text: [[content-filter]]")


def command(
    ask: Annotated[
        list[str] | None, typer.Option("--ask", metavar="QUESTION", help="Ask this instead; may be given again.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the vectors go (default: a temporary folder).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep all of it running afterwards, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Turn a real corpus into vectors on this machine: no key, no server, under a minute.

    The corpus is the docstrings of this Python's standard library. The endpoint is a stand-in with a quota and with
    faults, and no model: its vectors know spelling, not meaning. Your own endpoints and settings are not touched.
    """
    console = output.err if as_json else output.out
    began = time.monotonic()
    with own_home(keep_files=out is None) as folder, ExitStack() as stack:
        target = folder / "vectors" if out is None else out.resolve()
        with console.status("reading a corpus, starting a broker, an endpoint and workers ..."):
            documents = _write_corpus(folder / "corpus.jsonl")
            environment = stack.enter_context(demo_environment(folder))
        show_facts(console, _facts(documents))
        report = _backfill(environment, folder / "corpus.jsonl", target, console)
        answers = _answers(ask or QUESTIONS, Passages(target))
        summary = as_dictionary(report, environment.served(), answers, target, time.monotonic() - began)
        if as_json:
            output.print_json(summary)
        else:
            show_answers(console, answers)
            show_summary(console, summary)
        if keep:
            _stay(console)
    if report["failed"] != 1:  # the refused text and no other
        raise typer.Exit(output.FAILED)


def _write_corpus(path: Path) -> int:
    passages = [*standard_library(), REFUSED]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": each.id, "text": each.text}) + "\n" for each in passages)
    return len(passages)


def _facts(documents: int) -> list[tuple[str, str]]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [
        ("corpus", f"{documents:,} docstrings of {python}'s standard library"),
        ("endpoint", f"a stand-in: {REQUESTS:,} requests, {TOKENS:,} tokens a minute; 1 answer in 25 a fault"),
        ("workers", f"{PROCESSES} processes and a broker, which end with the demo\n"),
    ]


def _backfill(environment: DemoEnvironment, corpus: Path, target: Path, console: Console) -> Mapping[str, Any]:
    from penstock.workers.app import app

    redis = connect(environment.urls.broker)
    job = BackfillJob(open_source(str(corpus)), Registry(redis, environment.settings).get(ENDPOINT), target)
    seeker = PendingMessages(redis, environment.settings, queue_name(ENDPOINT, BULK))
    context = RunContext(
        app,
        redis,
        redis,
        seeker,
        environment.settings,
        no_workers=f"The workers do not answer: see {environment.settings.home}",
    )
    with shown(console, f"backfill of {corpus.name} by {ENDPOINT}") as watch:
        return run_backfill(job, context, watch).report


def _answers(questions: Sequence[str], passages: Passages) -> list[SearchAnswer]:
    """Embed the questions as a web application would, and find the passages nearest to them."""
    from penstock.tasks import embed

    result = embed.delay(list(questions), ENDPOINT).get(timeout=ANSWER_S)
    for failure in result.failures:
        raise InputInvalid(f"--ask: {questions[failure.index]!r}: {failure.message}")
    return [
        SearchAnswer(question, passages.nearest(vector, HITS))
        for question, vector in zip(questions, result.vectors, strict=True)
    ]


def _stay(console: Console) -> None:
    console.print("\nEverything goes on running until Ctrl-C. In another terminal:\n")
    console.print(f"  export PENSTOCK_HOME={os.environ['PENSTOCK_HOME']}", markup=False, soft_wrap=True)
    for line in ("penstock lanes --watch", f'penstock embed {ENDPOINT} "read a zip archive"', "penstock flower"):
        console.print(f"  {line}", markup=False)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
