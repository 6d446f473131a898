"""Where a backfill's rows come from. A source reads and says what is wrong; it knows nothing of chunks or lanes."""

from penstock.tasks.backfill.sources.opening import open_source
from penstock.tasks.backfill.sources.row import Bad, Document, Fields, Row, Source

__all__ = ["Bad", "Document", "Fields", "Row", "Source", "open_source"]
