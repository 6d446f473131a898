"""A folder of text and Markdown files: a document a file, its id the path below the folder, in sorted order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from penstock.config.errors import InputInvalid
from penstock.tasks.backfill.sources.row import MAX_ROW_BYTES, Fields, InvalidRow, Row, read_text

SUFFIXES = (".txt", ".text", ".md", ".markdown")


class FolderSource:
    """A folder, or a single Markdown file. Hidden files and folders are left out, and links to folders not followed."""

    fields: Fields | None = None

    def __init__(self, path: Path, text_field: str | None, id_field: str | None) -> None:
        if text_field or id_field:
            raise InputInvalid(f"{path} holds a document a file: there are no fields to name")
        self.name, self._path, self._read = str(path), path, 0
        self._fingerprint, self._total = self._look()
        if not self._total:
            raise InputInvalid(f"{path} holds no {', '.join(SUFFIXES)} files{_others(path)}")

    def _files(self) -> Iterator[Path]:
        return iter([self._path]) if self._path.is_file() else _walk(self._path)

    def _look(self) -> tuple[str, int]:
        digest, count = hashlib.blake2b(digest_size=16), 0
        for path in self._files():
            digest.update(f"{self._id(path)}\0{path.stat().st_size}\n".encode())
            count += 1
        return digest.hexdigest(), count

    def _id(self, path: Path) -> str:
        relative = path.name if path == self._path else path.relative_to(self._path).as_posix()
        return os.fsencode(relative).decode(errors="backslashreplace")

    def fingerprint(self) -> str | None:
        """See Source: the paths and sizes of all files."""
        return self._fingerprint

    def progress(self) -> tuple[int, int | None]:
        """See Source: files."""
        return self._read, self._total

    def rows(self, skip: int = 0, mark: int = 0) -> Iterator[Row]:
        """See Source."""
        for ordinal, path in enumerate(self._files()):
            self._read = ordinal + 1
            if ordinal >= skip:
                yield self._row(ordinal, path)

    def _row(self, ordinal: int, path: Path) -> Row:
        row_id = self._id(path)
        position = f"file {row_id}"
        try:
            if path.stat().st_size > MAX_ROW_BYTES:
                limit = f"{MAX_ROW_BYTES // 2**20} MiB"
                return InvalidRow(ordinal, row_id, "row_too_large", f"{position}: larger than {limit}; split it")
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as exc:
            return InvalidRow(ordinal, row_id, "unreadable_file", f"{position}: {exc.strerror}")
        except UnicodeDecodeError as exc:
            return InvalidRow(ordinal, row_id, "invalid_utf8", f"{position}: not valid UTF-8 (byte {exc.start + 1})")
        return read_text(ordinal, position, row_id, text)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the text files below a folder, sorted by name at each level, holding one level's names at a time."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as exc:
        raise InputInvalid(f"{folder} cannot be listed: {exc.strerror}") from exc
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            yield Path(entry.path)


def _others(folder: Path) -> str:
    """Say what the folder holds instead, where that helps: files that are sources of their own."""
    tables = sorted(path.name for path in folder.glob("*") if path.suffix in (".parquet", ".jsonl", ".csv"))
    return f" (but {', '.join(tables[:3])}: give such a file itself as the source)" if tables else ""
