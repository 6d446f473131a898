"""``python -m penstock.stand_in``: the same as ``penstock stand-in``."""

import sys

import typer

from penstock.config.errors import PenstockError
from penstock.stand_in.command import command


def main() -> int:
    """Run the command; a wrong option is one line and exit code 2, an interruption 130."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    try:
        app(standalone_mode=True)
    except PenstockError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
