"""Calls tasks of ours from an application of any Celery from 5.4: ``python -m support.host_run SCENE...``.

Prints what each scene found, as JSON. Endpoints ``docs`` (8 dimensions) and ``chat``, a worker of ours and one of
``support.host_app`` must be there.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import celery
import kombu
import numpy as np
from celery import chain, chord, group

from penstock.tasks import chunk, complete, embed, result_from
from support.host_app import app, shape, shapes, total, word, words

SECONDS = 40
#: A lane's queue as any app names it.
QUEUE = "penstock:penstock.docs.interactive"


def versions() -> Any:
    """What sends."""
    return [celery.__version__, kombu.__version__]


def plain_send() -> Any:
    """An app that knows nothing of ours, but the name of a task and of a queue."""
    got = app.send_task("penstock.embed", (["a", "b"], "docs"), queue=QUEUE).get(timeout=SECONDS)
    vectors = got["vectors"]
    array = np.frombuffer(base64.b64decode(vectors["base64"]), vectors["dtype"]).reshape(vectors["shape"])
    return [sorted(got), array.shape, bool((result_from(got).vectors == array).all())]


def plain_error() -> Any:
    """The same, with an endpoint that nobody knows."""
    got = app.send_task("penstock.embed", (["a"], "nobody"), queue=QUEUE)
    return type(got.get(timeout=SECONDS, propagate=False)).__name__


def by_name() -> Any:
    """With our result back end: the object."""
    got = app.send_task("penstock.embed", (["a", "b"], "docs"), queue=QUEUE)
    return [repr(got.get(timeout=SECONDS)), repr(app.AsyncResult(got.id).result), got.state]


def by_id() -> Any:
    """With our result back end: a task that ours sent, read by its id, while it is not done and after."""
    ours = embed.delay(["a", "b"], "docs")
    theirs = app.AsyncResult(ours.id)
    return [repr(theirs.get(timeout=SECONDS)), theirs.successful(), word.delay("own").get(timeout=SECONDS)]


def delay() -> Any:
    """Our task, our result."""
    return repr(embed.delay(["a", "b"], "docs").get(timeout=SECONDS))


def end_in_own() -> Any:
    """A chain that ends in a task of the app's own."""
    return chain(embed.s(["a", "b"], "docs"), shape.s())().get(timeout=SECONDS)


def back_to_object() -> Any:
    """The mapping, made an object again by the app's own task."""
    ours = embed.delay(["a", "b"], "docs").get(timeout=SECONDS).vectors.sum()
    return abs(chain(embed.s(["a", "b"], "docs"), total.s())().get(timeout=SECONDS) - float(ours)) < 1e-3


def own_first() -> Any:
    """A chain from the app's own task over ours to its own again; it is the app that sends it."""
    return chain(words.s(), embed.s("docs"), shape.s().set(queue="mine"))().get(timeout=SECONDS)


def three_of_ours() -> Any:
    """Ours into ours: chunks, an answer's text."""
    chunked = chain(chunk.s("a text", "docs"), embed.s("docs"))().get(timeout=SECONDS)
    said = chain(complete.s("hello", "chat"), embed.s("docs"), shape.s())().get(timeout=SECONDS)
    return [repr(chunked), said]


def groups() -> Any:
    """A group of ours alone; and one in a chain, which is a chord."""
    alone = group(embed.s([text], "docs") for text in "ab")().get(timeout=SECONDS)
    return [[repr(each) for each in alone], chain(embed.s(["a"], "docs"), group(shape.s(), shape.s()))().get(SECONDS)]


def chords() -> Any:
    """Ours with a body of the app's own, and the app's own with a body of ours."""
    ours = chord([embed.s([text], "docs") for text in "abc"], shapes.s())().get(timeout=SECONDS)
    theirs = chord([word.s(text) for text in "abc"], embed.s("docs"))().get(timeout=SECONDS)
    return [ours, repr(theirs)]


def main(names: list[str]) -> None:
    """Run scenes, print what they found."""
    scenes: dict[str, Callable[[], Any]] = {name: value for name, value in globals().items() if callable(value)}
    print(json.dumps({name: scenes[name]() for name in names}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
