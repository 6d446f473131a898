"""What a type checker knows of the public surface. mypy checks ``typed_calls``; it never runs.

``mypy tests`` fails where a type is another than it says here, and where a line that is wrong would be let through:
an ignore that nothing needs is an error in this file.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import pytest
from numpy.typing import NDArray

import penstock.tasks
from penstock.config.errors import CutStream, EndpointNotFound, InferenceFailed, LaneParked, PenstockError
from penstock.tasks import chunk, complete, embed, generate_image, stream
from penstock.tasks.services.base import Delta
from penstock.workers.results.types import CompleteResult, EmbedResult, Failure, ImageResult, Usage


def typed_calls() -> None:
    vectors = embed.delay(["a", "b"], "docs", input_type="search").get(timeout=30)
    assert_type(vectors, EmbedResult)
    assert_type(vectors.vectors, NDArray[Any])
    assert_type(vectors.usage, Usage)
    assert_type(vectors.usage.total_tokens, int)
    assert_type(vectors.failures, tuple[Failure, ...])
    assert_type(vectors.failures[0].code, str)
    assert_type(embed.apply_async((["a"], "docs"), queue="penstock.docs.bulk").get(), EmbedResult)

    answer = complete.delay("Hello", "chat", max_tokens=5).get()
    assert_type(answer, CompleteResult)
    assert_type(answer.text, str)
    assert_type(answer.finish_reason, str | None)
    deltas = stream("a-task", timeout=5)
    assert_type(iter(deltas), Iterator[Delta])
    assert_type(aiter(deltas), AsyncIterator[Delta])

    images = generate_image.delay("A chair", "images", n=2, size="512x512").get()
    assert_type(images, ImageResult)
    assert_type(images.urls, tuple[str, ...])
    assert_type(images.operation_id, str | None)

    assert_type(chunk("a text", "docs"), list[dict[str, Any]])
    assert_type(chunk.delay("a text", "docs").get(), list[dict[str, Any]])


def wrong_calls() -> None:
    embed.delay(["a"])  # type: ignore[call-arg]
    embed.delay(3, "docs")  # type: ignore[arg-type]
    complete.delay("Hello", "chat", stream="yes")  # type: ignore[arg-type]
    generate_image.delay("A chair", "images", n="two")  # type: ignore[arg-type]
    chunk("a text", "docs", 300)  # type: ignore[call-arg]
    embed.delay(["a"], "docs").get().vector  # type: ignore[attr-defined]  # noqa: B018


def typed_errors(error: InferenceFailed, parked: LaneParked, cut: CutStream, unknown: EndpointNotFound) -> None:
    assert_type(error.code, str)
    assert_type(error.status, int | None)
    assert_type(error.attempts, int)
    assert_type(cut.partial, str)
    every: list[PenstockError] = [error, parked, cut, unknown]
    failed: list[InferenceFailed] = [parked, cut]
    assert every
    assert failed


STUB = ast.parse((Path(penstock.tasks.__file__).with_suffix(".pyi")).read_text())


@pytest.mark.parametrize("name", ["chunk", "complete", "embed", "generate_image"])
def test_the_types_are_those_of_the_task(name: str) -> None:
    (typed,) = (each for each in STUB.body if isinstance(each, ast.FunctionDef) and each.name == name)
    run = inspect.signature(getattr(penstock.tasks, name).run)
    parameters = [each for each in run.parameters.values() if each.name != "self"]
    starred = [typed.args.kwarg] if typed.args.kwarg else []
    assert [each.arg for each in (*typed.args.args, *starred)] == [each.name for each in parameters]
    annotations = [ast.unparse(each.annotation) for each in (*typed.args.args, *starred) if each.annotation]
    assert annotations == [each.annotation for each in parameters]
    assert [ast.literal_eval(each) for each in typed.args.defaults] == [
        each.default for each in parameters if each.default is not inspect.Parameter.empty
    ]
    assert typed.returns is not None
    assert ast.unparse(typed.returns) == run.return_annotation


def test_all_public_names_are_typed() -> None:
    typed = {each.name for each in STUB.body if isinstance(each, ast.FunctionDef)}
    typed |= {
        name.asname for each in STUB.body if isinstance(each, ast.ImportFrom) for name in each.names if name.asname
    }
    assert typed >= set(penstock.tasks.__all__)
