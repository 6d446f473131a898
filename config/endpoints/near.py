"""What is said of an id that no endpoint has. It loads next to nothing: who only sends tasks says it too."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.config.errors import EndpointNotFound


def not_found(inference_id: str, known: Iterable[str]) -> EndpointNotFound:
    """Return the error for an id, with those of the known ids that are near it."""
    import difflib  # only for the error

    near = difflib.get_close_matches(str(inference_id), list(dict.fromkeys(known)), n=3)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return EndpointNotFound(
        f"Inference endpoint not found [{inference_id}]: {hint}`penstock endpoint list` shows all, "
        "`penstock endpoint put` makes one"
    )
