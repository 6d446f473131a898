"""``penstock jobs``: the backfills that this home knows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli import output
from penstock.cli.backfill.view import summary
from penstock.cli.options import AsJson
from penstock.config.errors import ConfigurationError
from penstock.config.settings import load_settings
from penstock.tasks.backfill.ledger.jobs import JobState, known_jobs, read_job

app = typer.Typer(add_completion=False, rich_markup_mode="rich", help="Backfills: list, show.")


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
    name: Annotated[str, typer.Argument(metavar="JOB", help="Its name, or its output folder.", show_default=False)],
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
