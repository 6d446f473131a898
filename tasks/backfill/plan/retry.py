"""Of a source only what failed before, and only where it is what it was then. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Set

from penstock.tasks.backfill.plan.batch import FailedRow
from penstock.tasks.backfill.plan.planner import Chunked, Spans, digest
from penstock.tasks.backfill.sources import Document, InvalidRow, Row

CHANGED = "source_changed"


class FailedRows:
    """The failed rows of a source.

    Args:
        failed: which, in the order of the source.
        texts: the digests of the texts that failed.
        source: its name.
    """

    def __init__(self, failed: Iterator[FailedRow], texts: Set[bytes], source: str) -> None:
        self._failed, self._texts, self._source = failed, texts, source
        self._asked: deque[FailedRow] = deque()

    def select(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield each failed row as the source has it now; one that is gone is a bad row."""
        row = next(rows, None)
        for failed in self._failed:
            while row is not None and row.ordinal < failed.ordinal:
                row = next(rows, None)
            self._asked.append(failed)
            there = row is not None and row.ordinal == failed.ordinal
            yield row if row is not None and there else self._changed(failed, "is gone")

    def restrict(self, rows: Iterator[Chunked]) -> Iterator[Chunked]:
        """Yield the rows that ``select`` gave, of each only the chunks that failed."""
        for row, spans in rows:
            failed = self._asked.popleft()
            if not failed.chunks:
                yield row, spans
            elif isinstance(row, InvalidRow):
                yield row._replace(id=failed.id), _each(failed)
            elif self._is_same(row, spans, failed):
                yield row, _only(failed, spans)
            else:
                yield self._changed(failed, "is not what it was"), _each(failed)

    def _is_same(self, row: Document, spans: Spans, failed: FailedRow) -> bool:
        if row.id != failed.id or max(failed.chunks) >= len(spans):
            return False
        return all(self._is_known(row, spans[chunk]) for chunk, sent in failed.chunks.items() if sent)

    def _is_known(self, row: Document, span: tuple[int, int] | None) -> bool:
        return span is not None and digest(row.text[slice(*span)].encode()) in self._texts

    def _changed(self, failed: FailedRow, how: str) -> InvalidRow:
        name = "without an id" if failed.id is None else repr(failed.id)
        message = (
            f"row {failed.ordinal + 1} ({name}) {how} in {self._source} since it failed: put the source back as it "
            "was and retry it, or embed the changed one into another --out folder"
        )
        return InvalidRow(failed.ordinal, failed.id, CHANGED, message)


def _only(failed: FailedRow, spans: Spans) -> Spans:
    return [span if chunk in failed.chunks else None for chunk, span in enumerate(spans)]


def _each(failed: FailedRow) -> Spans:
    return _only(failed, [(0, 0)] * (1 + max(failed.chunks)))
