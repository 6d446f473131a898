"""What tasks return. The codec (``penstock.workers.results.codec``) carries these through the result back end.

``__json__`` is what kombu's JSON asks an object for: in messages, and for apps that are not ours, results are plain
mappings (``penstock.workers.results.mapping``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray  # not needed before there is a vector


@dataclass(frozen=True)
class Usage:
    """What the provider charged for, summed over a call's requests. Zero where it said nothing."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    requests: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.requests + other.requests,
        )


@dataclass(frozen=True)
class Failure:
    """One input that could not be done: a dead letter in the making.

    Args:
        index: position of the input in the call.
        code: stable, snake_case (``content_filter``, ``input_too_long``, ``empty_text``, ``server_error`` ...).
        message: what happened, and what to do next.
        attempts: requests in which this input was sent.
    """

    index: int
    code: str
    message: str
    attempts: int = 0


@dataclass(frozen=True)
class Effort:
    """What a call cost beyond its usage, for reports.

    ``possibly_billed_twice`` counts inputs sent in a request whose outcome is unknown and that were sent again.
    """

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    possibly_billed_twice: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.requests + other.requests,
            self.retries + other.retries,
            self.rate_limited + other.rate_limited,
            self.possibly_billed_twice + other.possibly_billed_twice,
        )


@dataclass(frozen=True, eq=False)
class EmbedResult:
    """Vectors of one ``embed`` call.

    Args:
        vectors: ``(n, d)`` float32 in input order (or the typed array that the service was asked for); the rows of
            failed inputs are NaN (zero in integer types). ``(n, 0)`` when no input succeeded.
        usage: as the provider counted.
        model: the model's name as the provider gave it.
        failures: one for each input that has no vector.
        effort: requests, retries, 429s behind it.
    """

    vectors: NDArray[Any]
    usage: Usage = Usage()
    model: str = ""
    failures: tuple[Failure, ...] = ()
    effort: Effort = Effort()

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def __json__(self) -> dict[str, Any]:
        little = self.vectors.astype(self.vectors.dtype.newbyteorder("<"), copy=False)
        vectors = {
            "dtype": self.vectors.dtype.name,
            "shape": list(self.vectors.shape),
            "base64": base64.b64encode(little.tobytes()).decode(),
        }
        failures = [vars(each) for each in self.failures]
        return {"model": self.model, "vectors": vectors, "failures": failures, **_cost(self)}

    def __repr__(self) -> str:
        n, d = self.vectors.shape
        return f"EmbedResult({n} x {d} {self.vectors.dtype}, {len(self.failures)} failed)"


@dataclass(frozen=True)
class Choice:
    """One answer of a completion. ``tool_calls`` and ``message`` are as the provider sent them."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    message: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tool_calls(self) -> list[Any]:
        """Tool calls of this answer, as the provider sent them."""
        return list(self.message.get("tool_calls") or [])


@dataclass(frozen=True)
class CompleteResult:
    """Answers of one ``complete`` call. ``text`` and ``finish_reason`` are the first choice's."""

    choices: tuple[Choice, ...]
    usage: Usage = Usage()
    model: str = ""
    effort: Effort = Effort()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text if self.choices else ""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    def __json__(self) -> dict[str, Any]:
        choices = [{**vars(each), "message": dict(each.message)} for each in self.choices]
        said = {"text": self.text, "finish_reason": self.finish_reason, "choices": choices}
        return {**said, "model": self.model, **_cost(self), "extra": dict(self.extra)}

    def __repr__(self) -> str:
        return f"CompleteResult({len(self.choices)} choices, {len(self.text)} characters, {self.finish_reason})"


@dataclass(frozen=True)
class ImageResult:
    """Images of one ``generate_image`` call: ``urls`` or ``b64`` (one of them empty), files if a folder was given.

    ``times`` holds UNIX seconds by state (``SUBMITTED``, ``RUNNING``, ``SUCCEEDED``).
    """

    urls: tuple[str, ...] = ()
    b64: tuple[str, ...] = field(default=(), repr=False)
    operation_id: str | None = None
    revised_prompts: tuple[str | None, ...] = ()
    files: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    usage: Usage = Usage()
    effort: Effort = Effort()
    times: Mapping[str, float] = field(default_factory=dict)

    def __json__(self) -> dict[str, Any]:
        kept = {name: list(getattr(self, name)) for name in ("urls", "b64", "revised_prompts", "files")}
        failures = [vars(each) for each in self.failures]
        more = {"operation_id": self.operation_id, "failures": failures, "times": dict(self.times)}
        return {**kept, **more, **_cost(self)}

    def __repr__(self) -> str:
        # URLs of images may be signed: who has one has the image, so logs and events show none.
        images = len(self.urls) or len(self.b64) or len(self.files)
        return f"ImageResult({images} images, {len(self.files)} files, {len(self.failures)} failed)"


def _cost(result: Any) -> dict[str, Any]:
    return {"usage": vars(result.usage), "effort": vars(result.effort)}
