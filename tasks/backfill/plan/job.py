"""What a backfill is to do, resolved and checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.config.endpoints.chunking import validate_chunking
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import WrongTaskType
from penstock.tasks.backfill.sources import Source

_NOT_THE_MODEL = frozenset({"rate_limit", "timeout_s", "max_inputs_per_request", "url", "similarity"})


@dataclass(frozen=True)
class BackfillJob:
    """A backfill.

    Args:
        source: the corpus.
        endpoint: where its texts are embedded.
        out: the output folder.
        chunked: whether documents are cut by the endpoint's chunking settings.
        with_text: whether the output has the texts.
        name: what the user calls it; None for the folder's name, or the one it had.
        weight: its share of the lane against other jobs on it.
    """

    source: Source
    endpoint: Endpoint
    out: Path
    chunked: bool = True
    with_text: bool = True
    name: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.endpoint.task_type is not TaskType.TEXT_EMBEDDING:
            raise WrongTaskType(
                f"[{self.endpoint.inference_id}] is a {self.endpoint.task_type} endpoint: a backfill needs one of type "
                "text_embedding; see `penstock endpoint list`"
            )

    @property
    def chunking(self) -> dict[str, Any] | None:
        """The chunking settings with defaults filled in, None when documents are left whole."""
        return validate_chunking(self.endpoint.chunking_settings) if self.chunked else None

    @property
    def source_path(self) -> str | None:
        """Where the source lies, as an absolute path; None for standard input."""
        return None if self.source.fingerprint() is None else str(Path(self.source.name).resolve())

    @property
    def id_required(self) -> bool:
        """Whether each row must have the id field."""
        return self.source.fields is not None and self.source.fields.id_required

    def identity(self) -> dict[str, Any]:
        """Say what makes it this job and no other: a folder goes on only with the same.

        Limits, time-outs and the server's URL may change between runs; the model may not.
        """
        fields = self.source.fields
        return {
            "job": self.name,
            "source": {"name": self.source.name, "fingerprint": self.source.fingerprint()},
            "endpoint": self.endpoint.inference_id,
            "service": self.endpoint.service,
            "service_settings": _model(self.endpoint.service_settings),
            "task_settings": dict(self.endpoint.task_settings),
            "chunked": self.chunked,
            "chunking_settings": self.chunking or {},
            "text_field": fields.text if fields else None,
            "id_field": fields.id if fields else None,
            "with_text": self.with_text,
        }


def _model(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _NOT_THE_MODEL}
