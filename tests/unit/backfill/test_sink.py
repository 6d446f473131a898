"""Shards: the exact schema, whole or not there, and read back row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.config.errors import JobError
from penstock.tasks.backfill.ledger.ledger import Shard
from penstock.tasks.backfill.plan.batch import OutputRow
from penstock.tasks.backfill.targets import parquet as sink_module
from penstock.tasks.backfill.targets.parquet import Sink, clean, publish, read_vectors, schema


def output_rows(count: int, first: int = 0) -> list[OutputRow]:
    return [OutputRow(n, f"id-{n}", n % 3, n, n + 5) for n in range(first, first + count)]


def vectors(count: int, dimensions: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / ".penstock").mkdir()
    return tmp_path / ".penstock"


def test_the_schema_is_the_one_that_was_promised() -> None:
    assert schema(8, True) == pa.schema(
        [
            ("id", pa.string()),
            ("chunk", pa.int32()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("text", pa.string()),
            ("embedding", pa.list_(pa.float32(), 8)),
        ]
    )
    assert schema(8, False).names == ["id", "chunk", "start", "end", "embedding"]


@pytest.mark.parametrize("with_text", [True, False])
def test_a_shard_appears_when_published_and_holds_its_rows_bit_for_bit(
    tmp_path: Path, scratch: Path, with_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "GROUP_BYTES", 2000)
    sink = Sink(tmp_path, scratch, 3, 4, with_text)
    first, second = vectors(50), vectors(30, seed=2)
    assert sink.add(output_rows(50), [f"t{n}" for n in range(50)], first) == 0
    assert sink.add(output_rows(30, 50), [f"t{n}" for n in range(50, 80)], second) == 50
    shard = sink.close()
    assert list(tmp_path.glob("*.parquet")) == []
    publish(tmp_path, scratch, shard)
    publish(tmp_path, scratch, shard)  # again after a crash: nothing to do
    table = pq.read_table(tmp_path / "part-00003.parquet")
    assert table.schema.equals(schema(4, with_text))
    assert shard == Shard(3, 80, (tmp_path / "part-00003.parquet").stat().st_size)
    stored = np.array(table["embedding"].to_pylist(), np.float32)
    assert stored.tobytes() == np.concatenate([first, second]).tobytes()
    assert table["id"].to_pylist() == [f"id-{n}" for n in range(80)]
    if with_text:
        assert table["text"].to_pylist() == [f"t{n}" for n in range(80)]
    found, texts = read_vectors(tmp_path / "part-00003.parquet", [0, 49, 49, 50, 79], with_text)
    assert found.tobytes() == np.concatenate([first, second])[[0, 49, 49, 50, 79]].tobytes()
    assert texts == (["t0", "t49", "t49", "t50", "t79"] if with_text else [""] * 5)


def test_a_shard_is_full_by_rows_or_by_bytes(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "SHARD_ROWS", 60)
    sink = Sink(tmp_path, scratch, 0, 4, False)
    sink.add(output_rows(50), [], vectors(50))
    assert not sink.full
    sink.add(output_rows(10), [], vectors(10))
    assert sink.full
    monkeypatch.setattr(sink_module, "SHARD_ROWS", 1 << 16)
    monkeypatch.setattr(sink_module, "SHARD_BYTES", 1000)
    assert sink.full


def test_a_shard_that_was_lost_or_changed_is_named_with_the_remedy(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(JobError, match=r"part-00000.parquet is gone: put it back, or remove"):
        publish(tmp_path, scratch, Shard(0, 10, 100))
    (tmp_path / "part-00000.parquet").write_bytes(b"x")
    with pytest.raises(JobError, match=r"has 1 bytes where 100 were written"):
        publish(tmp_path, scratch, Shard(0, 10, 100))


def test_shards_that_the_ledger_does_not_know_are_cleaned_away(tmp_path: Path, scratch: Path) -> None:
    for number in (0, 1):
        (scratch / f"part-{number:05}.parquet").write_bytes(b"x")
    clean(scratch, [Shard(0, 1, 1)])
    assert [path.name for path in scratch.iterdir()] == ["part-00000.parquet"]


def test_a_discarded_shard_leaves_nothing(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "GROUP_BYTES", 1)
    sink = Sink(tmp_path, scratch, 0, 4, False)
    sink.add(output_rows(5), [], vectors(5))
    sink.discard()
    assert list(scratch.iterdir()) == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path, scratch: Path) -> None:
    import resource

    sink = Sink(tmp_path, scratch, 0, 256, False)
    sink.add(output_rows(2000), [], vectors(2000, 256))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(JobError, match=r"cannot write to .*: File too large. Fix that and run the same command"):
            sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.discard()
    assert list(scratch.iterdir()) == []
