"""``penstock lanes``: what every lane is doing."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import redis
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.cli import output
from penstock.cli.options import AsJson
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.registry import Registry
from penstock.config.names import BULK, INTERACTIVE, queue_name
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import state_url
from penstock.workers.embedded.broker import broker
from penstock.workers.lanes.status import in_flight, read_lane, waiting

COLUMNS = (
    "lane", "state", "waiting", "in flight", "requests/min", "limit", "tokens/min", "limit", "429s", "cool-down", "why",
)  # fmt: skip


def command(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between refreshes.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show each lane: messages waiting and in flight, what the last minute used, cool-down, state and why."""
    settings = load_settings()
    with broker(settings) as urls:
        client = connect(state_url(urls.broker, urls.results))
        registry = Registry(client, settings)
        if as_json:
            output.print_json({"lanes": read_all(client, settings, registry.list())})
        elif watch:
            _watch(client, settings, registry, interval)
        else:
            _print(read_all(client, settings, registry.list()))


def read_all(client: redis.Redis, settings: Settings, endpoints: list[Endpoint]) -> list[dict[str, Any]]:
    """Return a mapping for each endpoint's lane, in the order given."""
    held = in_flight(client, settings)
    rows = []
    for endpoint in endpoints:
        state = asdict(read_lane(client, settings, endpoint.quota, endpoint))
        queued = waiting(client, settings, endpoint.inference_id)
        flying = {name: held[queue_name(endpoint.inference_id, name)] for name in (INTERACTIVE, BULK)}
        rows.append({"inference_id": endpoint.inference_id, **state, "waiting": queued, "in_flight": flying})
    return rows


def _watch(client: redis.Redis, settings: Settings, registry: Registry, interval: float) -> None:
    while not output.out.is_terminal:  # a pipe or a file, where nothing can be redrawn: one table after another
        _print(read_all(client, settings, registry.list()))
        time.sleep(interval)
    with Live(console=output.out, auto_refresh=False) as live:
        while True:
            live.update(_table(read_all(client, settings, registry.list())), refresh=True)
            time.sleep(interval)


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        output.note("no lanes: there is no endpoint yet; see `penstock endpoint put --help`")
        return
    output.print_table(COLUMNS, [_cells(row) for row in rows])


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*COLUMNS, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        cells = [Text(cell) for cell in _cells(row)]
        cells[1].stylize(output.LANE_STYLES.get(row["state"], ""))
        table.add_row(*cells)
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["inference_id"],
        row["state"],
        _by_class(row["waiting"]),
        _by_class(row["in_flight"]),
        str(row["requests"]),
        _limit(row["requests_limit"]),
        f"{row['tokens']:,}",
        _limit(row["tokens_limit"]),
        str(row["rate_limited"]),
        f"{row['cool_s']:.1f} s" if row["cool_s"] else "",
        row["why"],
    ]


def _by_class(counts: dict[str, int]) -> str:
    return f"{counts[INTERACTIVE]} + {counts[BULK]} bulk" if counts[BULK] else str(counts[INTERACTIVE])


def _limit(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:,.0f}"
