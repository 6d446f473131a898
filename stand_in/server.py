"""The HTTP server: which path is which operation, and its life from listening to the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from penstock.config.errors import ConfigurationError
from penstock.stand_in import control
from penstock.stand_in.options import Options
from penstock.stand_in.state import STAND_IN, StandIn
from penstock.stand_in.vendors import azure_ai_paths, azure_paths, bedrock_paths, cohere, entra, openai_paths

_LARGEST_BODY = 512 * 1024 * 1024


def application(stand_in: StandIn) -> web.Application:
    """Return the aiohttp application with every path the stand-in speaks."""
    app = web.Application(client_max_size=_LARGEST_BODY)
    app[STAND_IN] = stand_in
    for part in (control, openai_paths, azure_paths, azure_ai_paths, entra, cohere, bedrock_paths):
        app.add_routes(part.routes())
    return app


@asynccontextmanager
async def listening(options: Options, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve while the context lasts; yields the base URL, ``http://127.0.0.1:PORT``.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    # Idle clients keep their connections: closing them would look like faults that nobody asked for.
    runner = web.AppRunner(
        application(StandIn(options)),
        access_log=None,
        keepalive_timeout=3600,
        shutdown_timeout=0.2,
        handle_signals=False,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        try:
            await site.start()
        except (OSError, OverflowError) as exc:
            raise ConfigurationError(
                f"cannot listen on {host}, port {port}: {exc}; give another --host or --port"
            ) from exc
        bound = runner.addresses[0]
        yield f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()
