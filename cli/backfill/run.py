"""``penstock backfill``: a corpus to vectors; kill it, run it again, it goes on."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli import output
from penstock.cli.backfill.view import shown, summary
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.names import BULK, LOGS, queue_name
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import is_redis, state_url
from penstock.tasks.backfill.dispatch.pending import PendingMessages, UnknownMessages
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.run import Interrupted, RetryFailed, RunContext, RunResult, run_backfill
from penstock.tasks.backfill.sources import open_source
from penstock.workers.embedded.broker import Urls, broker

DEFAULT_PROCESSES = 2
SOURCES = "JSONL, CSV, Parquet, a text file (a line each), a folder of text or Markdown files, - for JSONL on stdin."

CorpusSource = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCES, show_default=False)]
EndpointId = Annotated[str, typer.Option("--endpoint", "-e", metavar="ID", help="The inference endpoint.")]
TextField = Annotated[
    str | None, typer.Option("--text-field", metavar="F", help="The field with the text (default: text).")
]
IdField = Annotated[
    str | None,
    typer.Option("--id-field", metavar="F", help="The field with the id (default: id, or the row's number)."),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help=f"Workers to start for this run (default: {DEFAULT_PROCESSES} with the embedded broker, else none).",
    ),
]
ReportAsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON at the end.")]
NoChunk = Annotated[bool, typer.Option("--no-chunk", help="Embed each document whole.")]


def command(
    source: CorpusSource,
    endpoint: EndpointId,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The output folder.")],
    text_field: TextField = None,
    id_field: IdField = None,
    no_chunk: NoChunk = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the texts out of the output.")] = False,
    processes: Processes = None,
    name: Annotated[str | None, typer.Option("--job", metavar="NAME", help="A name for the job.")] = None,
    weight: Annotated[
        float,
        typer.Option(min=0.01, max=100, help="Share of the lane against other backfills: 2 gets twice what 1 gets."),
    ] = 1.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try once more what failed in an earlier run of this job.")
    ] = False,
    as_json: ReportAsJson = False,
) -> None:
    """Embed a corpus into Parquet files, within the endpoint's limits.

    It may be interrupted or killed at any time: the same command goes on where it was. Rows that cannot be done end
    in failed.jsonl with the reason; the counts are in report.json.
    """
    corpus = open_source(source, text_field, id_field)

    def job(found: Endpoint) -> BackfillJob:
        return BackfillJob(corpus, found, out, not no_chunk, not no_text, name, weight)

    carry_out(job, endpoint, processes, as_json, RetryFailed() if retry_failed else None)


def carry_out(
    make_job: Callable[[Endpoint], BackfillJob],
    endpoint: str,
    processes: int | None,
    as_json: bool,
    retry: RetryFailed | None = None,
) -> None:
    """Run a job and say how it ended.

    Args:
        make_job: gives it, once its endpoint is known.
        endpoint: the endpoint's id.
        processes: workers to start; None for the default.
        as_json: whether to print the report as JSON.
        retry: which failed rows to try again.
    """
    settings = load_settings()
    console = output.err if as_json else output.out
    with broker(settings) as urls:
        lanes = connect(state_url(urls.broker, urls.results))
        job = make_job(Registry(lanes, settings).get(endpoint))
        run_context = _run_context(job, settings, urls, processes)
        title = f"{job.source.name} to {job.out}/ by {endpoint}"
        _calm_collector()
        try:
            with shown(console, title) as watch:
                result = run_backfill(job, run_context, watch, retry)
        except Interrupted:
            output.note("Interrupted; nothing is lost. Run the same command again to go on.", "yellow")
            raise typer.Exit(output.INTERRUPTED) from None
    _conclude(result, job, as_json, retry)


def _calm_collector() -> None:
    """Have the garbage collector look less often, and never at what was imported.

    A run makes millions of small objects and no cycles; looking through them took a sixth of its processor time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _run_context(job: BackfillJob, settings: Settings, urls: Urls, processes: int | None) -> RunContext:
    from penstock.workers.app import app

    redis_broker = is_redis(urls.broker)
    queue = queue_name(job.endpoint.inference_id, BULK)
    own = processes if processes is not None else (DEFAULT_PROCESSES if settings.broker_url is None else 0)
    return RunContext(
        app,
        connect(urls.results),
        connect(state_url(urls.broker, urls.results)),
        PendingMessages(connect(urls.broker), settings, queue) if redis_broker else UnknownMessages(),
        settings,
        _starting(own, settings),
        f"The workers do not answer; see their logs in {settings.home / LOGS}."
        if own
        else "No worker answers. Start one on the same broker: penstock worker",
    )


def _starting(count: int, settings: Settings) -> Callable[[], AbstractContextManager[object]]:
    def start() -> AbstractContextManager[object]:
        if not count:
            return nullcontext()
        from penstock.workers.processes.launcher import workers

        return workers(count, settings)

    return start


def _conclude(result: RunResult, job: BackfillJob, as_json: bool, retry: RetryFailed | None) -> None:
    report, out = result.report, job.out
    if as_json:
        output.print_json(report)
    else:
        output.out.print(f"{_opening(result)}{summary(report)}.", markup=False, soft_wrap=True)
        output.out.print(f"Vectors in {out}/part-*.parquet, counts in {out}/report.json.", markup=False, soft_wrap=True)
    if result.repeated_ids and not result.before and not result.retried:
        output.warn(f"at least {result.repeated_ids:,} rows have an id that an earlier row has; each was kept")
    if retry is not None and not result.retried:
        failed = f"no row has failed with the code {retry.code!r}" if retry.code else "no row had failed"
        output.note(f"Nothing was tried again: {failed}.")
    if report["failed"]:
        codes = ", ".join(f"{count:,} {code}" for code, count in result.failures.items())
        output.warn(
            f"{report['failed']:,} could not be done; see {out}/failed.jsonl ({codes}). {_how_to_retry(job, result)}"
        )
        raise typer.Exit(output.FAILED)


def _opening(result: RunResult) -> str:
    if result.before:
        return "Finished before; nothing was done now. "
    return f"Tried {result.retried:,} failed rows again. " if result.retried else "Done: "


def _how_to_retry(job: BackfillJob, result: RunResult) -> str:
    if job.source_path is None:
        return "To try them again: the same command and input, with --retry-failed"
    code = " (--code CODE for those of one code)" if len(result.failures) > 1 else ""
    return f"To try them again: {shlex.join(['penstock', 'jobs', 'retry-failed', str(job.out)])}{code}"
