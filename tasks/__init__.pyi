# The tasks as type checkers see them: Celery ships no types, and its decorator forgets the function's.
# tests/unit/tasks/test_public_types.py holds these to the tasks themselves.

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from penstock.tasks.completion.streaming import stream as stream
from penstock.workers.results.mapping import result_from as result_from
from penstock.workers.results.types import CompleteResult, EmbedResult, ImageResult

__all__ = ["chunk", "complete", "embed", "generate_image", "result_from", "stream"]

P = ParamSpec("P")
R = TypeVar("R")

class TaskResult(Generic[R]):
    """Celery's ``AsyncResult``."""

    id: str
    state: str
    result: Any
    def get(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, **more: Any) -> R: ...
    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def failed(self) -> bool: ...
    def forget(self) -> None: ...
    def revoke(self, *args: Any, **options: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class CallableTask(Generic[P, R]):
    """A Celery task. What is not named here is as Celery has it, and unchecked."""

    name: str
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]: ...
    def apply_async(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> TaskResult[R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Any: ...
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...

def _task(function: Callable[P, R]) -> CallableTask[P, R]: ...
@_task
def chunk(text: str, endpoint_id: str) -> list[dict[str, Any]]: ...
@_task
def complete(
    prompt_or_messages: Any, endpoint_id: str, stream: bool | None = None, **overrides: Any
) -> CompleteResult: ...
@_task
def embed(texts: Sequence[Any], endpoint_id: str, **overrides: Any) -> EmbedResult: ...
@_task
def generate_image(
    prompt: Any,
    endpoint_id: str,
    n: int | None = None,
    size: str | None = None,
    out: str | None = None,
    delete: bool = False,
    deadline_s: float = 600.0,
    **overrides: Any,
) -> ImageResult: ...
