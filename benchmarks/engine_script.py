"""What one would write in an afternoon: asyncio, httpx, JSONL in, Parquet out. No queue, no limits, no resume.

    python benchmarks/engine_script.py CORPUS URL OUT DIMENSIONS BATCH

Sixteen requests in flight, because httpx's own transport slows down beyond that. Prints its seconds, from the first
line read to the file closed.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

IN_FLIGHT = 16


async def main(corpus: Path, url: str, out: Path, dimensions: int, batch: int) -> None:
    """Embed the corpus."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("embedding", pa.list_(pa.float32(), dimensions))])
    slots = asyncio.Semaphore(IN_FLIGHT)
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    with pq.ParquetWriter(out, schema, compression="none", use_dictionary=False) as writer:
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def embed(rows: list[dict[str, Any]]) -> None:
                texts = [row["text"] for row in rows]
                body = orjson.dumps({"model": "bank", "input": texts, "encoding_format": "base64"})
                async with slots:
                    answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
                answer.raise_for_status()
                data = orjson.loads(answer.content)["data"]
                raw = b"".join(base64.b64decode(item["embedding"]) for item in data)
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.frombuffer(raw, "<f4")), dimensions)
                ids = pa.array([row["id"] for row in rows])
                writer.write_batch(pa.RecordBatch.from_arrays([ids, pa.array(texts), vectors], schema=schema))

            async with asyncio.TaskGroup() as group:
                rows: list[dict[str, Any]] = []
                with corpus.open("rb") as lines:
                    for line in lines:
                        rows.append(orjson.loads(line))
                        if len(rows) == batch:
                            group.create_task(embed(rows))
                            rows = []
                if rows:
                    group.create_task(embed(rows))


if __name__ == "__main__":
    started = time.perf_counter()
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
    print(time.perf_counter() - started)
