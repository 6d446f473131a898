"""An app that no test shares with another, and what is done on one broker with it: put endpoints, publish calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.workers.app import PenstockApp
from penstock.workers.broker.bells import Bell

KEY = "a-key-of-no-worth"


def own_app(name: str) -> Any:
    """Make an app as ours, with the settings of this moment, that is nobody's current one."""
    return PenstockApp(
        name,
        task_cls="penstock.workers.task:Task",
        amqp="penstock.workers.task:ShortReprs",
        set_as_current=False,
    )


def close_app(app: Any) -> None:
    """Close its connections; results that are collected later must not look for a server that is gone."""
    consumer = app.backend.result_consumer
    consumer.stop()
    consumer._pubsub = None
    app.close()


def put_endpoint(
    broker_url: str,
    task_type: str,
    inference_id: str,
    service: str,
    service_settings: Mapping[str, Any],
    task_settings: Mapping[str, Any] | None = None,
    chunking_settings: Mapping[str, Any] | None = None,
) -> None:
    """Put an endpoint, unverified, with a key of no worth unless one is given."""
    settings = {"api_key": KEY, **service_settings}
    body: dict[str, Any] = {"service": service, "service_settings": settings}
    body["task_settings"] = dict(task_settings or {})
    if chunking_settings is not None:
        body["chunking_settings"] = dict(chunking_settings)
    with connect(broker_url) as client:
        Registry(client, load_settings()).put(task_type, inference_id, body)


def publish(app: Any, inference_id: str, calls: Sequence[list[str]], job_class: str = "bulk") -> list[str]:
    """Publish one ``embed`` call for each list of texts, many in a round trip, and ring. Returns the tasks' ids."""
    ids = [str(uuid4()) for _ in calls]
    queue = app.amqp.queues[f"penstock.{inference_id}.{job_class}"]
    with app.producer_or_acquire() as producer, producer.batch(500):
        for task_id, texts in zip(ids, calls, strict=True):
            message = app.amqp.as_task_v2(task_id, "penstock.embed", (texts, inference_id))
            app.amqp.send_task_message(producer, "penstock.embed", message, queue=queue)
    Bell(app.conf.broker_url, load_settings().key_prefix).ring([queue.name])
    return ids
