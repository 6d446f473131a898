"""What is done: chunk, embed, complete, generate images; services and backfills.

The public names are imported when first used: who only validates an endpoint loads no Celery.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "penstock.tasks":
    raise ImportError("import penstock.tasks: this folder is no package of its own")

if TYPE_CHECKING:
    from penstock.tasks.chunks import chunk
    from penstock.tasks.completion import complete
    from penstock.tasks.embedding import embed
    from penstock.tasks.image import generate_image
    from penstock.tasks.streaming import stream

__all__ = ["chunk", "complete", "embed", "generate_image", "stream"]

_MODULES = {
    "chunk": "chunks",
    "complete": "completion",
    "embed": "embedding",
    "generate_image": "image",
    "stream": "streaming",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
