"""Tasks' base classes, what is shown of their arguments, and where they are sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from penstock.config.errors import BrokerUnavailable
from penstock.workers.app import app as penstock_app
from penstock.workers.app import route
from penstock.workers.task import LaneTask, Task, describe


@pytest.fixture
def app() -> Celery:
    app = Celery("t", task_cls=Task, set_as_current=False, amqp="penstock.workers.task:ShortReprs")
    app.conf.task_always_eager = True
    return app


def test_a_coroutine_function_is_a_task_called_directly_and_eagerly(app: Celery) -> None:
    @app.task(bind=True, shared=False)
    async def double(self: Any, number: int) -> tuple[int, bool]:
        """Doubles."""
        await asyncio.sleep(0)
        return 2 * number, self.request.called_directly

    assert double(2) == (4, True)
    assert double.delay(3).get() == (6, False)
    assert (double.__doc__, double.blocking) == ("Doubles.", False)


def test_a_synchronous_body_is_taken_to_block_unless_it_says_otherwise(app: Celery) -> None:
    @app.task
    def sleepy() -> None: ...

    @app.task(blocking=False, shared=False)
    def quick() -> None: ...

    @app.task(blocking=True, shared=False)
    async def odd() -> None: ...

    assert (sleepy.blocking, quick.blocking, odd.blocking) == (True, False, True)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shown"),
    [
        ("penstock.embed", (["secret"] * 128, "docs-embeddings"), {}, "(docs-embeddings, 128 texts)"),
        ("penstock.embed", (["secret"],), {"endpoint_id": "docs"}, "(docs, 1 text)"),
        ("penstock.embed", (), {"texts": ["secret"] * 2, "endpoint_id": "docs"}, "(docs, 2 texts)"),
        ("penstock.chunk", ("secret", "docs"), {}, "(docs, 1 text)"),
        ("penstock.complete", ([{"role": "user"}] * 3, "chat"), {}, "(chat, 3 messages)"),
        ("penstock.generate_image", ("secret", "pictures"), {"n": 2}, "(pictures, 1 prompt)"),
        ("penstock.embed", (["a"], "x" * 500), {}, f"({'x' * 100}, 1 text)"),
        ("penstock.embed", (["a"], {"api_key": "secret"}), {}, "(1 text)"),
        ("penstock.embed", (), {}, "(1 text)"),
    ],
)
def test_what_is_shown_says_how_much_and_not_what(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shown: str
) -> None:
    assert describe(name, args, kwargs) == shown


def test_messages_and_events_carry_the_short_form_however_a_task_is_sent(app: Celery) -> None:
    message = app.amqp.as_task_v2("id", "penstock.embed", (["secret"], "docs"), {"k": "secret"}, create_sent_event=True)
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("(docs, 1 text)", "{}")
    assert "secret" not in str(message.sent_event)
    others = app.amqp.as_task_v2("id", "other.task", ([1], "docs"), {"k": 2})
    assert (others.headers["argsrepr"], others.headers["kwargsrepr"]) == ("([1], 'docs')", "{'k': 2}")


def celerys_retry_limit() -> RuntimeError:
    """What Celery raises when it cannot subscribe to a result before it sends its task."""
    error = RuntimeError("Retry limit exceeded while trying to reconnect: the application must be restarted.")
    error.__cause__ = redis.ConnectionError("Error 111 connecting to localhost:6379. Connection refused.")
    return error


@pytest.mark.parametrize("error", [OperationalError("Error 111"), redis.ConnectionError("x"), celerys_retry_limit()])
def test_a_broker_that_takes_no_task_is_an_error_of_ours_and_of_celerys(
    app: Celery, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task(name="penstock.embed", base=LaneTask, shared=False)
    def embed(texts: Any, endpoint_id: str) -> None: ...

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("celery.Task.apply_async", refuse)
    with pytest.raises(BrokerUnavailable, match="penstock worker") as caught:
        embed.delay(["a"], "docs")
    assert isinstance(caught.value, OperationalError)
    assert "restarted" not in str(caught.value)


def test_other_errors_of_sending_stay_what_they_are(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task(name="penstock.embed", base=LaneTask, shared=False)
    def embed(texts: Any, endpoint_id: str) -> None: ...

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("another")

    monkeypatch.setattr("celery.Task.apply_async", refuse)
    with pytest.raises(RuntimeError, match="another"):
        embed.delay(["a"], "docs")


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "queue"),
    [
        ("penstock.embed", (["a"], "docs"), {}, "penstock.docs.interactive"),
        ("penstock.complete", (), {"prompt": "a", "endpoint_id": "chat"}, "penstock.chat.interactive"),
        ("penstock.generate_image", ("a", "images"), {}, "penstock.images.interactive"),
        ("penstock.chunk", ("a", "docs"), {}, "penstock.chunk"),
        ("penstock.embed", (["a"],), {}, None),
        ("penstock.embed", (["a"], 5), {}, None),
        ("other.task", ("a", "docs"), {}, None),
    ],
)
def test_a_task_is_sent_to_its_endpoints_lane(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None
) -> None:
    found = route(name, args, kwargs, {})
    assert (found or {}).get("queue") == queue


def test_the_app_is_not_configured_by_its_import() -> None:
    import subprocess
    import sys

    code = "from penstock.workers.app import app; assert not app.configured; import penstock.tasks; print('ok')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PENSTOCK_CONCURRENCY": "nonsense"}, capture_output=True, text=True
    )
    assert done.stdout == "ok\n", done.stderr
    assert penstock_app.main == "penstock"
