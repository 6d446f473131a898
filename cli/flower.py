"""``penstock flower``: Flower on the same broker, bound to this machine unless an address is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import broker

LOOPBACK = "127.0.0.1"

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def command(
    options: Annotated[
        list[str] | None, typer.Argument(help="Flower's own options, such as --port 5566 or --basic-auth user:password")
    ] = None,
) -> None:
    """Open Flower on the same broker, at http://127.0.0.1:5555.

    It listens on this machine alone: anybody who reaches it may stop workers. To open it to others, give --address
    and --basic-auth. Options are passed on to Flower: --port, --address, --basic-auth, --persistent, --db,
    --max-tasks, --url-prefix, --certfile and so on.
    """
    from penstock.workers.app import app as celery_app

    settings = load_settings()
    with broker(settings) as found:
        # As celery.bin reads its command line: our gated transport is for workers, Flower asks the plain broker.
        arguments = ["-A", "penstock.workers.app", "-b", found.broker, "flower"]
        code = celery_app.start([*arguments, *flower_options(options or [])])
    raise typer.Exit(int(code or 0))


def flower_options(given: Sequence[str]) -> list[str]:
    """Return Flower's arguments: ``--name=value`` throughout, and bound to loopback unless an address is given."""
    options: list[str] = []
    for argument in given:
        if options and not argument.startswith("-") and options[-1].startswith("--") and "=" not in options[-1]:
            options[-1] += f"={argument}"
        else:
            options.append(argument)
    names = {option.partition("=")[0].replace("_", "-") for option in options}
    if not names & {"--address", "--unix-socket"} and "FLOWER_ADDRESS" not in os.environ:
        options.append(f"--address={LOOPBACK}")
    return options
