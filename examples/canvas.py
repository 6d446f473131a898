"""Chains, groups and chords: documents are cut, embedded and indexed by workers, with a task of your own at the end.

    penstock endpoint put text_embedding docs-embeddings --file examples/endpoints/openai.json
    cd examples && celery -A canvas worker        # Penstock's worker, with this module's tasks as well
    python examples/canvas.py README.md docs/design.md

Data comes first in every task's arguments, so that each step's result is the next one's input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from celery import chain, chord

from penstock.tasks import chunk, embed, result_from
from penstock.workers.app import app

ENDPOINT = os.environ.get("ENDPOINT", "docs-embeddings")


@app.task(name="examples.index")
def index(results: Sequence[Any], names: Sequence[str], path: str) -> int:
    """Write all documents' vectors to one ``.npz`` file; returns how many there are."""
    embedded = [result_from(each) for each in results]
    vectors = np.concatenate([result.vectors for result in embedded])
    documents = np.repeat(list(names), [len(result) for result in embedded])
    np.savez_compressed(path, vectors=vectors, documents=documents)
    return len(vectors)


def chunked(text: str) -> Any:
    """One document: cut by the endpoint's chunking settings, then embedded."""
    return chain(chunk.s(text, ENDPOINT), embed.s(ENDPOINT))


def main(paths: Sequence[str]) -> None:
    """Index files."""
    documents = [chunked(Path(path).read_text()) for path in paths]
    target = str(Path("index.npz").resolve())
    count = chord(documents, index.s(list(paths), target)).delay().get(timeout=300)
    print(f"{count} vectors of {len(paths)} documents in {target}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["README.md"])
