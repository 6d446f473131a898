"""What the commands print, and how they end.

Exit codes: 0 done, 1 done with failures or failed, 2 usage or configuration, 130 interrupted. An error is one line on
stderr; a traceback is printed only when asked for (``penstock --traceback ...``).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.config.errors import EndpointInvalid, PenstockError

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

#: How a lane's states are coloured on a terminal.
LANE_STYLES = {"open": "green", "cooling": "yellow", "probing": "yellow", "paused": "magenta", "parked": "bold red"}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """Print one JSON document on stdout: indented, uncoloured, with NaN as null."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    sys.stdout.write(orjson.dumps(data, default=str, option=options).decode())
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: framed and folded on a terminal; whole, aligned lines where another program reads them."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if out.is_terminal:
        table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for row in texts:
            table.add_row(*(Text(cell, overflow="fold") for cell in row))
        out.print(table)
        return
    widths = [max(len(line[n]) for line in [list(columns), *texts]) for n in range(len(columns))]
    for line in [[column.upper() for column in columns], *texts]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def note(message: str, style: str = "") -> None:
    """Print one line for people on stderr, whatever its length; stdout stays free for data."""
    err.print(Text(message, style=style), soft_wrap=True)


def warn(message: str) -> None:
    """Print one warning line on stderr."""
    err.print(Text.assemble(("warning: ", "bold yellow"), message), soft_wrap=True)


def fail(error: PenstockError | str, exit_code: int | None = None) -> NoReturn:
    """End the command: one clear line on stderr, and the error's own exit code (a plain text's is 1)."""
    raise typer.Exit(_report(error, exit_code))


def _report(error: PenstockError | str, exit_code: int | None = None) -> int:
    err.print(Text.assemble(("error: ", "bold red"), _message(error)), soft_wrap=True)
    if exit_code is not None:
        return exit_code
    return error.exit_code if isinstance(error, PenstockError) else FAILED


def _message(error: PenstockError | str) -> str:
    """One line, save for an endpoint's faults, which have a line each."""
    if isinstance(error, EndpointInvalid) and len(error.faults) > 1:
        return "Validation Failed:" + "".join(f"\n  {n}: {fault}" for n, fault in enumerate(error.faults, 1))
    return " ".join(str(error).split("\n"))


def run(command: Callable[[], object], *, show_traceback: Callable[[], bool] = lambda: False) -> int:
    """Run a command and return its exit code; whatever it raises becomes one line on stderr.

    Args:
        command: is called without arguments.
        show_traceback: asked after an error that is a defect of ours, whether to print where it came from.
    """
    try:
        command()
    except SystemExit as exc:
        return _code_of(exc)
    except typer.Exit as exc:
        return exc.exit_code
    except KeyboardInterrupt:
        note("interrupted", "yellow")
        return INTERRUPTED
    except PenstockError as exc:
        return _report(exc)
    except BrokenPipeError:
        # The reader has gone (`penstock endpoint list | head -1`): Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as exc:
        return _report(_os_error(exc), FAILED)
    except Exception as exc:
        if show_traceback():
            err.print("".join(traceback.format_exception(exc)), markup=False)
        return _report(*_foreign(exc))
    return DONE


def _code_of(exc: SystemExit) -> int:
    if isinstance(exc.code, str):
        return _report(exc.code)
    return exc.code or DONE


def _os_error(exc: OSError) -> str:
    reason = exc.strerror or str(exc) or type(exc).__name__
    return f"{exc.filename}: {reason}" if exc.filename else reason


def _foreign(exc: Exception) -> tuple[str, int]:
    """Name an error that is not ours. Redis and kombu are not imported for it: whoever raised it did that."""
    kind = type(exc)
    module = kind.__module__.partition(".")[0]
    if (module, kind.__name__) in _UNREACHABLE:
        return (
            f"the broker cannot be reached ({_first_line(exc)}): start it, or correct PENSTOCK_BROKER_URL; unset, an "
            "embedded broker is used",
            USAGE,
        )
    return (
        f"a defect of Penstock: {kind.__name__}: {_first_line(exc)}; run `penstock --traceback ...` and report it",
        FAILED,
    )


_UNREACHABLE = {
    ("redis", "ConnectionError"),
    ("redis", "TimeoutError"),
    ("redis", "BusyLoadingError"),
    ("kombu", "OperationalError"),
}


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or ["no message"])[0]
