"""A server of OpenAI's embeddings format that costs next to nothing: vectors from a bank, after a fixed wait.

    python benchmarks/engine_server.py DIMENSIONS LATENCY_MS

Prints its URL on one line. A text's vector is the bank's entry at the text's CRC-32; ``right_vector`` says which, so
that the benchmark can check what it measured.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import zlib

import numpy as np
import orjson
from aiohttp import web
from numpy.typing import NDArray

BANK = 1024


def bank(dimensions: int) -> NDArray[np.float32]:
    """Return the ``(1024, dimensions)`` float32 vectors that there are."""
    return np.random.default_rng(1).standard_normal((BANK, dimensions)).astype("<f4")


def right_vector(vectors: NDArray[np.float32], text: str) -> NDArray[np.float32]:
    """Return the one right vector of a text."""
    vector: NDArray[np.float32] = vectors[zlib.crc32(text.encode()) % BANK]
    return vector


async def _serve(dimensions: int, latency_ms: float) -> None:
    encoded = [b'"embedding":"' + base64.b64encode(vector.tobytes()) + b'"}' for vector in bank(dimensions)]

    async def embed(request: web.Request) -> web.Response:
        texts = orjson.loads(await request.read())["input"]
        data = (b'{"object":"embedding","index":%d,' % n + encoded[zlib.crc32(text.encode()) % BANK]
                for n, text in enumerate(texts))  # fmt: skip
        tail = b'],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (len(texts), len(texts))
        body = b'{"object":"list","model":"bank","data":[' + b",".join(data) + tail
        await asyncio.sleep(latency_ms / 1000)
        return web.Response(body=body, content_type="application/json")

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/v1/embeddings", embed)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}/v1/embeddings", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
