"""Where a backfill's rows come from. A source reads and says what is wrong; it knows nothing of chunks or lanes."""

from penstock.tasks.backfill.sources.opening import open_source
from penstock.tasks.backfill.sources.row import Document, Fields, InvalidRow, Row, Source

__all__ = ["Document", "Fields", "InvalidRow", "Row", "Source", "open_source"]
