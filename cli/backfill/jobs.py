"""``penstock jobs``: the backfills that this home knows."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from penstock.cli import output
from penstock.cli.backfill.run import Processes, ReportAsJson, carry_out
from penstock.cli.backfill.view import summary
from penstock.cli.options import AsJson
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.errors import ConfigurationError
from penstock.config.settings import load_settings
from penstock.tasks.backfill.ledger.folder import REPORT
from penstock.tasks.backfill.ledger.jobs import JobOptions, JobState, known_jobs, read_job, read_options
from penstock.tasks.backfill.plan.job import BackfillJob
from penstock.tasks.backfill.run import RetryFailed
from penstock.tasks.backfill.sources import open_source

app = typer.Typer(add_completion=False, rich_markup_mode="rich", help="Backfills: list, show, retry what failed.")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Its name, or its output folder.", show_default=False)]


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """Show backfills; without a command, list them."""
    if context.invoked_subcommand is None:
        list_jobs()


@app.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """List the backfills that were started from this home, the latest first."""
    jobs = known_jobs(load_settings().home)
    if as_json:
        output.print_json({"jobs": [_as_dictionary(job) for job in jobs]})
        return
    rows = [
        (job.name, job.state, job.endpoint, f"{job.tally.embedded:,}", f"{job.tally.failed:,}", job.source, job.out)
        for job in jobs
    ]
    output.print_table(("job", "state", "endpoint", "embedded", "failed", "source", "folder"), rows)


@app.command()
def show(
    name: JobName,
    as_json: AsJson = False,
) -> None:
    """Show one backfill: its state and counts.

    [bold]Examples[/]
      penstock jobs show corpus
      penstock jobs show vectors/ --json
    """
    job = _find(name)
    if job.state == "newer":
        job = read_job(job.out)  # says which format it is, and what to do
    if as_json:
        output.print_json(_as_dictionary(job))
        return
    print(f"{job.name}: {job.state}, {job.source} to {job.out} by {job.endpoint}")
    print(summary({**asdict(job.tally), "quota_use": None}))
    if job.state == "stopped":
        print("The same `penstock backfill` command goes on with it.")
    if job.state == "done" and job.tally.failed:
        print(f"To try again what failed: {shlex.join(['penstock', 'jobs', 'retry-failed', name])}")


@app.command("retry-failed")
def retry_failed(
    name: JobName,
    code: Annotated[
        str | None, typer.Option("--code", metavar="C", help="Only rows that failed with this code (see failed.jsonl).")
    ] = None,
    processes: Processes = None,
    as_json: ReportAsJson = False,
) -> None:
    """Try again what failed in a backfill: exactly those rows, read from the source once more.

    failed.jsonl and report.json are those of the whole job. It may be interrupted or killed at any time: the same
    command goes on where it was. A job that is not finished is finished first.

    [bold]Examples[/]
      penstock jobs retry-failed vectors/
      penstock jobs retry-failed corpus --code content_filter
    """
    found = _find(name)
    job = read_options(found.out)
    if found.state == "done" and not job.failed:  # whatever has become of its source
        output.note("Nothing was tried again: no row had failed.")
        if as_json:
            output.print_json(orjson.loads((job.out / REPORT).read_bytes()))
        return
    corpus = open_source(_source_of(job), job.text_field, job.id_field)
    out = Path(name) if Path(name).is_dir() else job.out

    def make(endpoint: Endpoint) -> BackfillJob:
        return BackfillJob(corpus, endpoint, out, job.chunked, job.with_text, job.job)

    carry_out(make, job.endpoint, processes, as_json, RetryFailed(code))


def _source_of(job: JobOptions) -> str:
    """Return the path of a job's source.

    Raises:
        ConfigurationError: it was standard input, or is not there any more.
    """
    if job.source != "-" and Path(job.source).exists():
        return job.source
    what = f"{job.first_failed}, the first that failed, is read from" if job.failed else "the job reads"
    again = " --retry-failed" if job.failed else ""
    if job.source == "-":
        raise ConfigurationError(f"{what} standard input: give the same again, {job.command('-')}{again}")
    found = f"{job.command('PATH')}{again}"
    raise ConfigurationError(f"{what} {job.source}, which is gone: put it back, or say where it is now: {found}")


def _find(name: str) -> JobState:
    if Path(name).is_dir() and (here := read_job(Path(name).resolve())).state != "gone":
        return here
    jobs = [job for job in known_jobs(load_settings().home) if job.state != "gone"]
    for job in jobs:
        if job.name == name:
            return job
    names = ", ".join(dict.fromkeys(job.name for job in jobs)) or "none"
    raise ConfigurationError(f"no backfill is named {name!r}, nor is that the folder of one. Known: {names}")


def _as_dictionary(job: JobState) -> dict[str, Any]:
    return {
        "name": job.name,
        "state": job.state,
        "endpoint": job.endpoint,
        "source": job.source,
        "out": str(job.out),
        **asdict(job.tally),
    }
