"""``penstock lane``: pause and resume one lane, for every worker at once, and see to its dead messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import redis
import typer

from penstock.cli import output
from penstock.cli.lanes import read_all
from penstock.cli.options import AsJson, InferenceId
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.errors import ConfigurationError
from penstock.config.names import CHUNK_QUEUE, DEFAULT_QUEUE, JOB_CLASSES, operations_queue, queue_name
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import is_redis, state_url
from penstock.workers.broker import dead_letters
from penstock.workers.broker.dead_letters import DeadMessage
from penstock.workers.embedded.broker import broker
from penstock.workers.lanes.limiter import change_lane

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Pause or resume a lane; see its dead messages.",
)


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


@app.command()
def dead(
    inference_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help=f"The endpoint's id, or a queue of no endpoint: `{DEFAULT_QUEUE}`, `{CHUNK_QUEUE}`.",
            show_default=False,
        ),
    ],
    requeue: Annotated[bool, typer.Option("--requeue", help="Put them back on their queues, as they were.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Drop them for good.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the messages of a lane that no worker could read: why, when, how long, whose. Never what is in them.

    They are kept for 14 days after the last one. Put them back once the cause is gone, such as a worker that was too
    old for them.

    [bold]Examples[/]
      penstock lane dead docs-embeddings
      penstock lane dead docs-embeddings --requeue
      penstock lane dead docs-embeddings --drop --json
    """
    if requeue and drop:
        raise ConfigurationError("--requeue and --drop exclude each other: give one of them")
    settings = load_settings()
    with broker(settings) as urls:
        if not is_redis(urls.broker):
            raise ConfigurationError("dead messages are kept on a Redis broker only: on RabbitMQ workers drop them")
        client, prefix = connect(urls.broker), settings.key_prefix
        found = dead_letters.read_dead(client, prefix, _queues(inference_id))
        if not found and inference_id not in (DEFAULT_QUEUE, CHUNK_QUEUE):
            Registry(connect(state_url(urls.broker, urls.results)), settings).get(inference_id)  # is it one?
        act = {(True, False): dead_letters.requeue, (False, True): dead_letters.drop}.get((requeue, drop))
        done = sum(act(client, prefix, each) for each in reversed(found)) if act else 0
    verb = "put back" if requeue else "dropped"
    if as_json:
        output.print_json({"dead": [_row(each) for each in found], **({verb.replace(" ", "_"): done} if act else {})})
    elif act:
        print(f"{done} of {len(found)} dead messages {verb}")
    else:
        _print_dead(found)


def _queues(inference_id: str) -> set[str]:
    if inference_id in (DEFAULT_QUEUE, CHUNK_QUEUE):
        return {inference_id}
    return {*(queue_name(inference_id, each) for each in JOB_CLASSES), operations_queue(inference_id)}


def _row(dead: DeadMessage) -> dict[str, Any]:
    at = datetime.fromtimestamp(dead.at, UTC).isoformat(timespec="seconds")
    return {"at": at, "queue": dead.queue, "task_id": dead.task_id, "size": len(dead.raw), "why": dead.why}


def _print_dead(found: list[DeadMessage]) -> None:
    if not found:
        output.note("no dead messages")
        return
    rows = [_row(each) for each in found]
    cells = [[row["at"], row["queue"], row["task_id"] or "", f"{row['size']:,}", row["why"]] for row in rows]
    output.print_table(("at", "queue", "task", "bytes", "why"), cells)


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
