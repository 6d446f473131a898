"""Results as plain JSON mappings, for tasks and callers of Celery apps that are not ours, and back.

::

    embed           {"model", "vectors": {"dtype", "shape", "base64"}, "usage", "failures", "effort"}
    complete        {"text", "finish_reason", "choices", "model", "usage", "effort", "extra"}
    generate_image  {"urls", "b64", "operation_id", "revised_prompts", "files", "failures", "usage", "effort", "times"}

``vectors`` are little-endian, rows one after another: ``numpy.frombuffer(base64.b64decode(v["base64"]), v["dtype"])``,
then ``.reshape(v["shape"])``. The types themselves make the mappings (``__json__``, which kombu's JSON asks for).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.config.errors import InputInvalid
from penstock.workers.results.types import Choice, CompleteResult, Effort, EmbedResult, Failure, ImageResult, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray  # loaded with the first vector

Result = EmbedResult | CompleteResult | ImageResult


def result_from(mapping: Any) -> Result:
    """Return the result that a task of another Celery app was given as a mapping, or read as one.

    Args:
        mapping: what ``embed``, ``complete`` or ``generate_image`` gave. A result itself is returned as it is. Names
            that are not known are left out: a newer version wrote them.

    Raises:
        InputInvalid: it is none.
    """
    if isinstance(mapping, Result):
        return mapping
    if isinstance(mapping, Mapping):
        for name, read in _READERS.items():
            if name in mapping:
                return _read(read, mapping)
    raise InputInvalid(
        f"[mapping] must be what embed, complete or generate_image gave, with one of {', '.join(_READERS)} in it; got "
        f"a {type(mapping).__name__}"
    )


def text_of(given: Any) -> Any:
    """Return the text of a completion, as an object or as a mapping, and anything else as it is."""
    if isinstance(given, CompleteResult):
        return given.text
    if isinstance(given, Mapping) and "choices" in given and "role" not in given:
        return given.get("text")
    return given


def _read(read: Any, mapping: Mapping[str, Any]) -> Result:
    try:
        result: Result = read(mapping)
    except (ValueError, TypeError, LookupError, AttributeError, binascii.Error) as exc:
        raise InputInvalid(f"[mapping] is no result: it is damaged, or something was changed in it ({exc})") from exc
    return result


def _embedding(mapping: Mapping[str, Any]) -> EmbedResult:
    vectors = _array(mapping["vectors"])
    if vectors.ndim != 2:
        raise ValueError("its vectors are no (n, d) array")
    usage, effort = _of(Usage, mapping.get("usage")), _of(Effort, mapping.get("effort"))
    return EmbedResult(vectors, usage, mapping.get("model") or "", _failures(mapping), effort)


def _completion(mapping: Mapping[str, Any]) -> CompleteResult:
    choices = tuple(_of(Choice, each) for each in mapping["choices"])
    usage, effort = _of(Usage, mapping.get("usage")), _of(Effort, mapping.get("effort"))
    return CompleteResult(choices, usage, mapping.get("model") or "", effort, mapping.get("extra") or {})


def _images(mapping: Mapping[str, Any]) -> ImageResult:
    known: dict[str, Any] = {
        name: tuple(mapping.get(name) or ()) for name in ("urls", "b64", "revised_prompts", "files")
    }
    usage, effort = _of(Usage, mapping.get("usage")), _of(Effort, mapping.get("effort"))
    known |= {"operation_id": mapping.get("operation_id"), "times": mapping.get("times") or {}}
    return ImageResult(**known, failures=_failures(mapping), usage=usage, effort=effort)


#: How a mapping is read, by the name that only its kind has.
_READERS = {"vectors": _embedding, "choices": _completion, "urls": _images}


def _failures(mapping: Mapping[str, Any]) -> tuple[Failure, ...]:
    return tuple(_of(Failure, each) for each in mapping.get("failures") or ())


def _of(cls: Any, fields: Mapping[str, Any] | None) -> Any:
    return cls(**{name: value for name, value in (fields or {}).items() if name in cls.__dataclass_fields__})


def _array(fields: Mapping[str, Any]) -> NDArray[Any]:
    import numpy as np

    from penstock.workers.results.kinds import read_array

    name = np.dtype(fields["dtype"]).newbyteorder("<").str[1:]
    return read_array(name, list(fields["shape"]), memoryview(base64.b64decode(fields["base64"], validate=True)))
