"""The control API: statistics, options at run time, a fresh start, and the right vector of a text."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from aiohttp import web

from penstock.config.errors import ConfigurationError
from penstock.stand_in.state import STAND_IN
from penstock.stand_in.vectors import MAX_DIMENSIONS, vector


def _json(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json")


async def stats(request: web.Request) -> web.Response:
    """Answer with the statistics."""
    return _json(request.app[STAND_IN].report())


async def get_config(request: web.Request) -> web.Response:
    """Answer with the options as they are."""
    return _json(request.app[STAND_IN].options.model_dump())


async def post_config(request: web.Request) -> web.Response:
    """Change the options named in the body, all or none, and answer with all of them."""
    stand_in = request.app[STAND_IN]
    try:
        changes = orjson.loads(await request.read() or b"{}")
        if not isinstance(changes, dict):
            raise ConfigurationError('give a JSON object of options, such as {"rpm": 600}')
        stand_in.configure(changes)
    except (ConfigurationError, orjson.JSONDecodeError) as exc:
        return _json({"error": str(exc)}, 400)
    return _json(stand_in.options.model_dump())


async def reset(request: web.Request) -> web.Response:
    """Forget counts and the quotas' use; answer with the empty statistics."""
    stand_in = request.app[STAND_IN]
    stand_in.reset()
    return _json(stand_in.report())


async def get_vector(request: web.Request) -> web.Response:
    """Answer with the right vector of ``?text=``: base64 of little-endian float32."""
    text = request.query.get("text")
    dimensions = request.query.get("dimensions", str(request.app[STAND_IN].options.dimensions))
    if text is None or not dimensions.isdecimal() or not 1 <= int(dimensions) <= MAX_DIMENSIONS:
        return _json({"error": f"give ?text= and perhaps &dimensions= from 1 to {MAX_DIMENSIONS}"}, 400)
    row = vector(text, int(dimensions)).astype("<f4", copy=False)
    return _json({"dimensions": len(row), "embedding": base64.b64encode(row.tobytes()).decode("ascii")})


def routes() -> list[web.RouteDef]:
    """Return the routes of the control API."""
    return [
        web.get("/_stand_in/stats", stats),
        web.get("/_stand_in/config", get_config),
        web.post("/_stand_in/config", post_config),
        web.post("/_stand_in/reset", reset),
        web.get("/_stand_in/vector", get_vector),
    ]
