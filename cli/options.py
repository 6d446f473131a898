"""Options and arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
InferenceId = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id.", show_default=False)]
VendorSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the vendor's, its value JSON; repeatable."),
]
