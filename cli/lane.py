"""``penstock lane``: pause and resume one lane, for every worker at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import redis
import typer

from penstock.cli import output
from penstock.cli.lanes import read_all
from penstock.cli.options import AsJson, InferenceId
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect, state_url
from penstock.config.settings import Settings, load_settings
from penstock.workers.embedded.broker import broker
from penstock.workers.lanes.limiter import change_lane

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", help="Pause or resume a lane.")


@app.command()
def pause(
    inference_id: InferenceId,
    why: Annotated[str, typer.Option("--why", help="A reason, shown by `penstock lanes`.")] = "",
    as_json: AsJson = False,
) -> None:
    """Stop sending to an endpoint. Messages wait in the broker; requests in flight are finished.

    Endpoints that share a provider account and model share one lane's quota, and are paused together.

    [bold]Examples[/]
      penstock lane pause docs-embeddings --why "invoice in dispute"
    """
    _change(inference_id, "paused", why or "paused by an operator", as_json)


@app.command()
def resume(inference_id: InferenceId, as_json: AsJson = False) -> None:
    """Send again. A lane that was parked sends one request first, and goes on when that one succeeds.

    [bold]Examples[/]
      penstock lane resume docs-embeddings
    """
    _change(inference_id, "resume", "", as_json)


def _change(inference_id: str, change: Literal["paused", "resume"], why: str, as_json: bool) -> None:
    with _opened(inference_id) as (client, settings, endpoint):
        change_lane(client, settings.key_prefix, endpoint.quota, change, why)
        (row,) = read_all(client, settings, [endpoint])
    if as_json:
        output.print_json(row)
        return
    print(f"lane {inference_id} is {row['state']}" + (f": {row['why']}" if row["why"] else ""))


@contextmanager
def _opened(inference_id: str) -> Iterator[tuple[redis.Redis, Settings, Endpoint]]:
    settings = load_settings()
    with broker(settings) as urls:
        client = connect(state_url(urls.broker, urls.results))
        yield client, settings, Registry(client, settings).get(inference_id)
