"""What is done: chunk, embed, complete, generate images; and backfills.

Enter at a task's folder (``embedding``, ``completion``, ``images``, ``chunking``): ``task`` in each is the Celery
task. ``request`` is what every call shares, ``services`` the wire formats, ``backfill`` runs over a corpus. It knows
nothing of commands. The public names are imported when first used: who only validates an endpoint loads no Celery.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "penstock.tasks":
    raise ImportError("import penstock.tasks: this folder is no package of its own")

if TYPE_CHECKING:
    from penstock.tasks.chunking.task import chunk
    from penstock.tasks.completion.streaming import stream
    from penstock.tasks.completion.task import complete
    from penstock.tasks.embedding.task import embed
    from penstock.tasks.images.task import generate_image

__all__ = ["chunk", "complete", "embed", "generate_image", "stream"]

_MODULES = {
    "chunk": "chunking.task",
    "complete": "completion.task",
    "embed": "embedding.task",
    "generate_image": "images.task",
    "stream": "completion.streaming",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
