"""``penstock stand-in`` and ``python -m penstock.stand_in``: options from the command line, then serve."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args, get_origin

import orjson
import typer
from pydantic.fields import FieldInfo

from penstock.stand_in.faults import KINDS
from penstock.stand_in.options import Options, options
from penstock.stand_in.server import listening

_HELP = """Stand in for a hosted inference endpoint, on this machine: no key, no model, no bill.

It speaks the wire formats of OpenAI, Azure OpenAI, Azure AI Model Inference, Bedrock and Cohere, enforces limits
as they do, fails as they fail, and counts what it served. Its vectors know spelling, not meaning.
"""


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make the command-line option of one of ``Options``' fields; texts are parsed by the model, not by typer."""
    extra = field.json_schema_extra
    panel = str(extra["group"]) if isinstance(extra, dict) else None
    flag = "--" + name.replace("_", "-")
    settings: dict[str, Any] = {"help": field.description, "rich_help_panel": panel}
    kind: Any
    if field.annotation is bool:
        kind = Annotated[bool, typer.Option(flag, **settings)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kind)
    many = isinstance(field.default, (dict, tuple))
    shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    settings |= {"show_default": False if shown in (None, "", {}) else str(shown)}
    info = typer.Option(flag, metavar=_metavar(field), **settings)
    kind = Annotated[list[str] | None, info] if many else Annotated[str | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _metavar(field: FieldInfo) -> str:
    if isinstance(field.default, dict):
        return "NAME=VALUE"
    kinds = [field.annotation, *get_args(field.annotation)]
    if get_origin(field.annotation) is Literal:
        return "|".join(word for word in get_args(field.annotation) if word)
    return "INTEGER" if int in kinds else "NUMBER" if float in kinds else "TEXT"


def _parameters() -> Iterator[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    own: list[tuple[str, Any, Any]] = [
        ("host", "127.0.0.1", Annotated[str, typer.Option("--host", help="Address to listen on.")]),
        (
            "port",
            8089,
            Annotated[int, typer.Option("--port", help="Port to listen on; 0 picks a free one.", min=0, max=65535)],
        ),
        ("as_json", False, Annotated[bool, typer.Option("--json", help="Print one JSON line with url and pid.")]),
        (
            "with_parent",
            False,
            Annotated[bool, typer.Option("--with-parent", help="End when standard input ends or the parent does.")],
        ),
    ]
    for name, default, annotation in own:
        yield inspect.Parameter(name, kind, default=default, annotation=annotation)
    for name, field in Options.model_fields.items():
        yield _parameter(name, field)


def command(*, host: str, port: int, as_json: bool, with_parent: bool, **given: Any) -> None:
    """Serve until interrupted; its help is made below.

    Raises:
        ConfigurationError: an option is wrong or the address is taken.
    """
    chosen = options({name: value for name, value in given.items() if value is not None})
    asyncio.run(_serve(chosen, host, port, as_json, with_parent))


command.__doc__ = (
    _HELP
    + "\nFaults: a status from 400 to 599, or:\n\n\b\n"
    + "\n".join(f"  {kind:<15} {text}" for kind, text in KINDS.items())
)
command.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]
command.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters()}


async def _serve(chosen: Options, host: str, port: int, as_json: bool, with_parent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    watcher = asyncio.create_task(_watch_parent(stop)) if with_parent else None
    try:
        async with listening(chosen, host, port) as url:
            _announce(url, as_json)
            await stop.wait()
    finally:
        if watcher is not None:
            watcher.cancel()


def _announce(url: str, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(orjson.dumps({"url": url, "pid": os.getpid()}).decode() + "\n")
    else:
        sys.stdout.write(
            f"Standing in for an inference endpoint at {url}\n"
            f"  OpenAI's format: {url}/v1/embeddings\n"
            f"  what it served:  {url}/_stand_in/stats\n"
            "Ctrl-C ends it.\n"
        )
    sys.stdout.flush()


async def _watch_parent(stop: asyncio.Event) -> None:
    """Set ``stop`` when standard input (if it is a pipe) ends, or when the parent process does."""
    loop = asyncio.get_running_loop()
    parent = os.getppid()
    mode = os.fstat(0).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        os.set_blocking(0, False)

        def readable() -> None:
            with suppress(BlockingIOError):
                if not os.read(0, 4096):
                    loop.remove_reader(0)
                    stop.set()

        loop.add_reader(0, readable)
    while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of a parent's end
        await asyncio.sleep(0.25)
    stop.set()
