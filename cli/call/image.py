"""``penstock image``: one task, from a prompt to images; their files are written here, wherever the worker runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from celery.result import AsyncResult
from rich.status import Status

from penstock.cli import output
from penstock.cli.call.stdin import read_text
from penstock.cli.call.task_client import read_settings, task_client
from penstock.cli.options import AsJson, InferenceId, VendorSettings
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType, load_service
from penstock.config.names import IMAGE_TASK
from penstock.config.settings import load_settings
from penstock.tasks.declarations import DEADLINE_S
from penstock.workers.results.types import ImageResult


def command(
    inference_id: InferenceId,
    prompt: Annotated[
        str, typer.Argument(metavar="[PROMPT|-]", help="The prompt; - is stdin.", show_default=False)
    ] = "-",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write the images here: a folder, or a URL such as s3://...")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="Number of images.")] = None,
    size: Annotated[str | None, typer.Option(help="Their size, such as 512x512.")] = None,
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds after the submit at which it is given up.")
    ] = DEADLINE_S,
    settings: VendorSettings = None,
    as_json: AsJson = False,
) -> None:
    """Generate images from a prompt. Without --out their URLs are printed."""
    text = read_text(prompt)
    overrides = read_settings(settings or [])
    with task_client(inference_id, (TaskType.IMAGE_GENERATION,)) as found:
        where = _where(out)
        task = found.send(IMAGE_TASK, text, n=n, size=size, deadline_s=deadline, **overrides)
        with _progress(task) as tick:
            result: ImageResult = found.wait(task, tick)
        if where is not None:
            result = asyncio.run(_keep(result, where, task.id, found.endpoint, text))
    if as_json:
        output.print_json(dataclasses.asdict(result))
    else:
        _print(result)
    if result.failures:
        raise typer.Exit(output.FAILED)


def _where(out: str | None) -> Any:
    """Return where files go; a wrong place is refused before anything is paid for."""
    from penstock.tasks.images.store import store

    return None if out is None else store(out)


async def _keep(result: ImageResult, where: Any, name: str, endpoint: Endpoint, prompt: str) -> ImageResult:
    from penstock.tasks.images.store import Downloader, keep_all
    from penstock.tasks.request.http import HttpClient
    from penstock.tasks.services.base import ImageCall

    own = load_service(endpoint.service).image_request(endpoint, ImageCall(prompt)).url
    http = HttpClient(load_settings().connect_timeout_s)
    try:
        return await keep_all(result, where, name, Downloader(http, own, endpoint.timeout_s))
    finally:
        await http.aclose()


@contextlib.contextmanager
def _progress(task: AsyncResult) -> Iterator[Any]:
    """Show the task's state: one line that changes on a terminal, a line a state elsewhere."""
    begun = time.monotonic()
    seen = [""]
    with output.err.status("waiting for the lane ...") as status:

        def tick() -> None:
            state, info = task.state, task.info
            name = info.get("operation_id") if isinstance(info, dict) else None
            _tell(status, seen, state, name, time.monotonic() - begun)

        yield tick


def _tell(status: Status, seen: list[str], state: str, name: str | None, seconds: float) -> None:
    if state not in ("SUBMITTED", "RUNNING"):
        return
    words = f"{state.lower()}: operation {name}"
    if output.err.is_terminal:
        status.update(f"{words}, {seconds:.0f} s")
    elif words != seen[0]:
        output.note(words)
    seen[0] = words


def _print(result: ImageResult) -> None:
    for place in result.files or result.urls:
        print(place)
    if result.b64 and not result.files:
        output.warn(f"{len(result.b64)} images came as base64: --out DIR writes them, --json prints them")
    for failure in result.failures:
        output.warn(f"image {failure.index}: {failure.code}: {failure.message}")
