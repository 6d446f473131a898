"""Names of queues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.names import (
    CHUNK_QUEUE,
    DEFAULT_QUEUE,
    JOB_CLASSES,
    JobClass,
    parse_queue,
    queue_key,
    queue_name,
)


@given(st.from_regex(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", fullmatch=True), st.sampled_from(JOB_CLASSES))
def test_a_name_gives_its_endpoint_and_class_back(inference_id: str, job_class: JobClass) -> None:
    assert parse_queue(queue_name(inference_id, job_class)) == (inference_id, job_class)


@pytest.mark.parametrize(
    "name", [DEFAULT_QUEUE, CHUNK_QUEUE, "celery", "penstock.x.other", "penstock..bulk", "x.a.bulk"]
)
def test_other_queues_are_no_lanes(name: str) -> None:
    assert parse_queue(name) is None


def test_the_list_in_redis_has_the_prefix_before_the_name() -> None:
    assert queue_key("penstock:", queue_name("docs")) == "penstock:penstock.docs.interactive"
