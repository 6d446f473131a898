"""Vectors to Parquet: one shard at a time, written row group by row group under the hidden folder.

A shard is seen under its name only when it is whole: ``close`` makes it durable, the caller enters it in the ledger,
``publish`` renames it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock.config.errors import JobError
from penstock.tasks.backfill.ledger.folder import flush_folder, writing
from penstock.tasks.backfill.ledger.ledger import Shard
from penstock.tasks.backfill.plan.batch import OutputRow

SHARD_BYTES = 64 * 1024 * 1024
SHARD_ROWS = 1 << 16
GROUP_BYTES = 16 * 1024 * 1024


def schema(dimensions: int, with_text: bool) -> pa.Schema:
    """Return the output's schema.

    Args:
        dimensions: length of the vectors.
        with_text: whether there is a column of the texts.
    """
    columns = [("id", pa.string()), ("chunk", pa.int32()), ("start", pa.int32()), ("end", pa.int32())]
    text = [("text", pa.string())] if with_text else []
    return pa.schema([*columns, *text, ("embedding", pa.list_(pa.float32(), dimensions))])


def shard_name(number: int) -> str:
    """Return a shard's file name."""
    return f"part-{number:05}.parquet"


class Sink:
    """The open shard.

    Args:
        folder: the output folder.
        scratch: the hidden folder in it.
        number: the shard's number.
        dimensions: length of the vectors.
        with_text: whether to write the texts.
    """

    def __init__(self, folder: Path, scratch: Path, number: int, dimensions: int, with_text: bool) -> None:
        self._folder, self._path = folder, scratch / shard_name(number)
        self._schema, self._with_text = schema(dimensions, with_text), with_text
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self.number, self.rows, self.bytes = number, 0, 0

    @property
    def full(self) -> bool:
        """Whether the shard has reached its size."""
        return self.bytes >= SHARD_BYTES or self.rows >= SHARD_ROWS

    def add(self, output_rows: Sequence[OutputRow], texts: Sequence[str], vectors: NDArray[np.float32]) -> int:
        """Take rows in.

        Args:
            output_rows: which rows.
            texts: a text a row; not looked at when texts are not written.
            vectors: ``(n, d)`` float32, a vector a row.

        Returns:
            The first one's row in the shard.
        """
        first = self.rows
        batch = pa.RecordBatch.from_arrays(self._columns(output_rows, texts, vectors), schema=self._schema)
        self._waiting.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= GROUP_BYTES:
            self._write()
        return first

    def _columns(
        self, output_rows: Sequence[OutputRow], texts: Sequence[str], vectors: NDArray[np.float32]
    ) -> list[pa.Array]:
        _, ids, chunks, starts, ends = zip(*output_rows, strict=True)
        dense = np.ascontiguousarray(vectors, dtype=np.float32)
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(dense.reshape(-1)), dense.shape[1])
        numbers = [pa.array(column, pa.int32()) for column in (chunks, starts, ends)]
        text = [pa.array(texts, pa.string())] if self._with_text else []
        return [pa.array(ids, pa.string()), *numbers, *text, embedding]

    def _write(self) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        with _writing(self._folder):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, self._schema, **_encoding(self._with_text))
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting, self._waiting_bytes = [], 0

    def close(self) -> Shard:
        """Write what is left and make the file durable, still out of sight."""
        if self._waiting or self._writer is None:
            self._write()
        assert self._writer is not None
        with _writing(self._folder):
            self._writer.close()
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        return Shard(self.number, self.rows, self._path.stat().st_size)

    def discard(self) -> None:
        """Drop the shard: its rows are not done and will come again."""
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # a full disk may be why it is dropped
                self._writer.close()
        self._path.unlink(missing_ok=True)


def publish(folder: Path, scratch: Path, shard: Shard) -> None:
    """Put a shard that the ledger has under its name; nothing to do if it is there already.

    Raises:
        JobError: it is in neither place, or is not as long as it was.
    """
    name = shard_name(shard.number)
    with writing(folder):
        if (scratch / name).exists():
            (scratch / name).replace(folder / name)
            flush_folder(folder)
        size = (folder / name).stat().st_size if (folder / name).exists() else None
    if size != shard.bytes:
        state = "is gone" if size is None else f"has {size} bytes where {shard.bytes} were written"
        raise JobError(
            f"{folder / name} {state}: put it back, or remove {folder} (its {scratch.name} folder too) to start anew"
        )


def check(folder: Path, scratch: Path, shards: Sequence[Shard]) -> None:
    """See that all shards of the ledger are in place, putting there what a killed run had not yet.

    Raises:
        JobError: one is gone, or is not as long as it was.
    """
    for shard in shards:
        publish(folder, scratch, shard)


def clean(scratch: Path, known: Sequence[Shard]) -> None:
    """Remove what a killed run left in the hidden folder: shards that never got into the ledger."""
    names = {shard_name(shard.number) for shard in known}
    for path in scratch.glob("part-*.parquet"):
        if path.name not in names:
            path.unlink()


def read_vectors(path: Path, rows: Sequence[int], with_text: bool) -> tuple[NDArray[np.float32], list[str]]:
    """Read some rows' vectors (and texts) from a shard, one row group at a time.

    Args:
        path: the shard.
        rows: which, ascending; repeats allowed.
        with_text: whether the shard has texts.
    """
    columns = ["embedding", "text"] if with_text else ["embedding"]
    vectors: list[NDArray[np.float32]] = []
    texts: list[str] = []
    wanted = np.asarray(rows)
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            here = wanted[(wanted >= start) & (wanted < start + count)] - start
            if len(here):
                table = file.read_row_group(group, columns=columns).take(pa.array(here))
                flat = table.column("embedding").combine_chunks().flatten()
                vectors.append(flat.to_numpy().reshape(len(here), -1))
                texts += table.column("text").to_pylist() if with_text else [""] * len(here)
            start += count
    return np.concatenate(vectors), texts


def _encoding(with_text: bool) -> dict[str, Any]:
    """How the columns are written: vectors plain (they do not compress), the rest with Zstandard."""
    plain = ["id", "chunk", "start", "end", *(["text"] if with_text else [])]
    return {
        "compression": {**dict.fromkeys(plain, "zstd"), "embedding.list.element": "none"},
        "use_dictionary": ["chunk"],
        "write_statistics": ["id", "chunk"],
    }


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """``writing``, for what pyarrow raises as well."""
    with writing(folder):
        try:
            yield
        except pa.ArrowException as exc:
            raise OSError(str(exc)) from exc
