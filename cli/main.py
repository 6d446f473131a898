"""The ``penstock`` command: a table of commands, each imported when it is called.

A command is a module of this package with either ``app`` (a ``typer.Typer``, for a group) or ``command`` (a function
with typer's annotations). ``penstock --help`` imports none of them.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from penstock.cli import output
from penstock.config.errors import ConfigurationError


@dataclass(frozen=True)
class CommandEntry:
    """One command: the module that has it, a line for ``--help``, examples for its own help."""

    module: str
    help: str
    examples: tuple[str, ...]
    section: str = "Commands"


START, ENDPOINTS, ONE, MANY, RUN = "Start here", "Endpoints", "One task", "A corpus", "Run and watch"

COMMANDS: dict[str, CommandEntry] = {
    "demo": CommandEntry(
        "penstock.cli.demo.command",
        "A real corpus to vectors in a minute: no key, no server.",
        ("penstock demo", 'penstock demo --ask "read a zip archive"'),
        START,
    ),
    "config": CommandEntry(
        "penstock.cli.config",
        "Every setting: its variable, its value, where that came from.",
        ("penstock config", "PENSTOCK_CONCURRENCY=50 penstock config --json"),
        START,
    ),
    "endpoint": CommandEntry(
        "penstock.cli.endpoint",
        "Inference endpoints: put, get, list, delete, test.",
        (
            "penstock endpoint put text_embedding docs-embeddings --file openai.json",
            "penstock endpoint list",
            "penstock endpoint test docs-embeddings",
        ),
        ENDPOINTS,
    ),
    "lanes": CommandEntry(
        "penstock.cli.lanes",
        "The lanes: quota used, waiting, in flight, cooling, parked.",
        ("penstock lanes", "penstock lanes --watch"),
        ENDPOINTS,
    ),
    "lane": CommandEntry(
        "penstock.cli.lane",
        "Pause or resume a lane; see its dead messages.",
        (
            "penstock lane pause docs-embeddings",
            "penstock lane resume docs-embeddings",
            "penstock lane dead docs-embeddings",
        ),
        ENDPOINTS,
    ),
    "chunk": CommandEntry(
        "penstock.cli.call.chunk",
        "Split a text by an endpoint's chunking settings.",
        ("penstock chunk docs-embeddings - < README.md", "penstock chunk docs-embeddings - --json < README.md"),
        ONE,
    ),
    "embed": CommandEntry(
        "penstock.cli.call.embed",
        "Embed one text and print its vector.",
        ('penstock embed docs-embeddings "a gated pipe"', "penstock embed docs-embeddings - --json < text.txt"),
        ONE,
    ),
    "complete": CommandEntry(
        "penstock.cli.call.complete",
        "Complete one prompt and print the answer.",
        ('penstock complete chat "What is a penstock?"', 'penstock complete chat "Tell me more" --stream'),
        ONE,
    ),
    "image": CommandEntry(
        "penstock.cli.call.image",
        "Generate images from a prompt.",
        ('penstock image pictures "An avocado chair"', 'penstock image pictures "An avocado chair" --out images/'),
        ONE,
    ),
    "plan": CommandEntry(
        "penstock.cli.backfill.plan",
        "Dry run of a backfill: documents, chunks, tokens, minutes, cost.",
        ("penstock plan corpus.parquet --endpoint docs-embeddings",),
        MANY,
    ),
    "backfill": CommandEntry(
        "penstock.cli.backfill.run",
        "A corpus to vectors; kill it, run it again, it goes on.",
        (
            "penstock backfill corpus.parquet --endpoint docs-embeddings --out vectors/",
            "penstock backfill rows.jsonl --endpoint docs-embeddings --out vectors/ --text-field body --no-chunk",
        ),
        MANY,
    ),
    "jobs": CommandEntry(
        "penstock.cli.backfill.jobs",
        "Backfills: list them, show one, retry what failed.",
        ("penstock jobs list", "penstock jobs show vectors", "penstock jobs retry-failed vectors"),
        MANY,
    ),
    "worker": CommandEntry(
        "penstock.cli.worker",
        "Run workers for the lanes.",
        ("penstock worker", "penstock worker --processes 4 --concurrency 200"),
        RUN,
    ),
    "flower": CommandEntry(
        "penstock.cli.flower",
        "Open Flower on the same broker.",
        ("penstock flower", "penstock flower --port 5566"),
        RUN,
    ),
    "stand-in": CommandEntry(
        "penstock.stand_in.command",
        "A stand-in for a service, with its limits and faults, for trying things out.",
        (
            "penstock stand-in --port 8089 --rpm 3000 --tpm 1000000 --latency-ms 50",
            "penstock stand-in --fault 500=0.02 --poison BAD=content-filter",
            "curl localhost:8089/_stand_in/stats",
        ),
        RUN,
    ),
}

# Sections that a docstring has for programmers: options have their own help.
_FOR_PROGRAMMERS = re.compile(r"\n\s*\n\s*(Args|Arguments|Raises|Returns|Yields):\s*\n.*\Z", re.DOTALL)


class Commands(TyperGroup):
    """The group of all commands, none of them imported before it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands' names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command, or None when there is no such command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if ctx.resilient_parsing:  # the shell asks for completions: one broken command must not cost the others
            try:
                return load(cmd_name, entry)
            except ConfigurationError:
                return _stub(cmd_name, entry)
        return load(cmd_name, entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuse an unknown command with the names that are near."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"No such command '{args[0]}'.{_near(args[0])}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the table of commands by section."""
        output.out.print("Feeds hosted inference endpoints exactly the requests that they allow.\n")
        output.out.print("[bold]Usage:[/] penstock COMMAND ...    penstock COMMAND --help\n")
        grid = Table.grid(padding=(0, 2))
        for section in (START, ENDPOINTS, ONE, MANY, RUN):
            grid.add_row(Text(section, "bold"), "")
            for name, entry in COMMANDS.items():
                if entry.section == section:
                    grid.add_row(Text(f"  {name}", "cyan"), Text(entry.help))
        output.out.print(grid)
        output.out.print(
            "\n[bold]Options:[/] --help, --version, --install-completion, --show-completion,\n"
            "         --traceback (print where an unexpected error came from)"
        )


def load(name: str, entry: CommandEntry) -> Any:
    """Import a command and return it as click's object, its examples added to its help.

    Raises:
        ConfigurationError: the module or something that it needs is not installed.
    """
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if missing and f"{entry.module}.".startswith(f"{missing}."):
            raise ConfigurationError(f"`penstock {name}` is not part of this installation of Penstock") from None
        raise ConfigurationError(
            f"`penstock {name}` needs the Python package '{missing.partition('.')[0]}', which is not installed: "
            f"pip install {missing.partition('.')[0]}"
        ) from exc
    app = getattr(module, "app", None) or _single(name, module.command)
    command: Any = typer.main.get_command(app)
    command.name = name
    command.help = _for_people(command.help or entry.help)
    command.epilog = command.epilog or _examples(entry)
    for each in getattr(command, "commands", {}).values():
        each.help = _for_people(each.help or "")
    return command


def _for_people(docstring: str) -> str:
    """Return a docstring's paragraphs unwrapped, indented ones as they are, sections for programmers left out."""
    paragraphs = _FOR_PROGRAMMERS.sub("", inspect.cleandoc(docstring)).split("\n\n")
    return "\n\n".join(each if "\n " in each else each.replace("\n", " ") for each in paragraphs)


def _single(name: str, function: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name=name)(function)
    return app


def _stub(name: str, entry: CommandEntry) -> Any:
    def stub() -> None:
        """Stand for a command that cannot be imported."""

    command: Any = typer.main.get_command(_single(name, stub))
    command.help = entry.help
    return command


def _examples(entry: CommandEntry) -> str:
    return "[bold]Examples[/]\n" + "\n".join(f"  {line}" for line in entry.examples)


def _near(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=3)
    return f" Did you mean {', '.join(near)}?" if near else " Try 'penstock --help'."


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {metadata.version('penstock')}")
        raise typer.Exit


app = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Print where an unexpected error came from.")] = False,
) -> None:
    """Feed hosted inference endpoints exactly the requests that they allow."""


def main(args: Sequence[str] | None = None) -> None:
    """Run ``penstock`` and exit with its code."""
    arguments = list(sys.argv[1:] if args is None else args)
    command: Any = typer.main.get_command(app)
    sys.exit(
        output.run(
            lambda: command(args=arguments, prog_name="penstock"),
            show_traceback=lambda: _before_command(arguments, "--traceback"),
        )
    )


def _before_command(arguments: Sequence[str], option: str) -> bool:
    """Tell whether an option stands before the command's name: after it, it is the command's own."""
    for argument in arguments:
        if not argument.startswith("-"):
            return False
        if argument == option:
            return True
    return False


if __name__ == "__main__":
    main()
