"""Which reader a source needs, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources.columns import ParquetRows
from penstock.tasks.backfill.sources.folder import FolderSource
from penstock.tasks.backfill.sources.jsonl import JsonLines
from penstock.tasks.backfill.sources.lines import COMPRESSIONS
from penstock.tasks.backfill.sources.row import Source
from penstock.tasks.backfill.sources.table import CsvRows
from penstock.tasks.backfill.sources.textfile import TextLines

Reader = Callable[[Path, str | None, str | None], Source]

READERS: dict[str, Reader] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".csv": CsvRows,
    ".tsv": CsvRows,
    ".parquet": ParquetRows,
    ".pq": ParquetRows,
    ".txt": TextLines,
    ".text": TextLines,
    ".md": FolderSource,
    ".markdown": FolderSource,
}
_UNCOMPRESSED = (".parquet", ".pq", ".md", ".markdown")
_KINDS = (
    "JSONL (.jsonl, .ndjson), CSV (.csv, .tsv), text (.txt, a document a line), each also .gz or .zst; Parquet; "
    "a folder of .txt and .md files; or - for JSONL on standard input"
)


def open_source(source: str, text_field: str | None = None, id_field: str | None = None) -> Source:
    """Open a corpus.

    Args:
        source: a file, a folder, or ``-``.
        text_field: the field with the text; None takes ``text``, or what plainly is the text.
        id_field: the field with the id, then required in each row; None takes ``id``, or the row's position.

    Raises:
        InputInvalid: there is no such file, its kind is not known, or it has no such fields.
    """
    if source == "-":
        return JsonLines(None, text_field, id_field)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputInvalid(f"{source} does not exist. A source is {_KINDS}.")
    try:
        if path.is_dir():
            return FolderSource(path, text_field, id_field)
        return _reader(path)(path, text_field, id_field)
    except OSError as exc:
        raise InputInvalid(f"{source} cannot be read: {exc.strerror or exc}") from exc


def _reader(path: Path) -> Reader:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    kind = (suffixes[-2] if len(suffixes) > 1 else "") if compressed else (suffixes[-1] if suffixes else "")
    if kind == ".json":
        raise InputInvalid(
            f"{path} is named as one JSON document. Make it JSON lines: jq -c '.[]' {path.name} > "
            f"{path.stem}.jsonl (or rename it, if it has an object a line)."
        )
    if kind not in READERS or (compressed and kind in _UNCOMPRESSED):
        raise InputInvalid(f"{path}: unknown kind of file. A source is {_KINDS}.")
    return READERS[kind]
