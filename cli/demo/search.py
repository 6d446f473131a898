"""Nearest passages: reads a backfill's Parquet and compares vectors. Knows nothing of endpoints or workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hit:
    """A passage near a question. ``score`` is the cosine of the angle between their vectors."""

    id: str
    score: float
    text: str


class Passages:
    """The rows of a backfill's output.

    Args:
        folder: where the ``part-*.parquet`` files are.
    """

    def __init__(self, folder: Path) -> None:
        parts = sorted(str(path) for path in folder.glob("part-*.parquet"))
        table: pa.Table = ds.dataset(parts).to_table(columns=["id", "text", "embedding"])
        self._ids: list[str] = table["id"].to_pylist()
        self._texts: list[str] = table["text"].to_pylist()
        self._vectors = _unit(_matrix(table["embedding"]))

    def __len__(self) -> int:
        return len(self._ids)

    def nearest(self, query: NDArray[np.float32], count: int) -> list[Hit]:
        """Return the best passages for a query ``(d,)``, best first, each document once."""
        scores = self._vectors @ _unit(query[None, :])[0]
        best: dict[str, Hit] = {}
        for row in np.argsort(-scores):
            hit = Hit(self._ids[row], float(scores[row]), self._texts[row])
            best.setdefault(hit.id, hit)
            if len(best) == count:
                break
        return list(best.values())


def first_sentence(passage: str) -> str:
    """Return the first line of a passage's docstring, its heading (name and signature) left out."""
    lines = [line.strip() for line in passage.splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else (lines or [""])[0]


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    return np.concatenate(list(_blocks(column)))


def _blocks(column: pa.ChunkedArray) -> Iterator[NDArray[np.float32]]:
    for chunk in column.chunks:
        width = chunk.type.list_size
        yield chunk.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, width)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float32] = (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
    return result
