"""Azure OpenAI's images of 2023: submit, poll, delete."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tasks.services.base import ImageCall, Refused
from penstock.workers.lanes.outcome import OutcomeKind
from support.wire import answer, body_of, check_schema, endpoint, service

AZURE = service("azureopenai")
VERSION = "2023-06-01-preview"
TARGET = endpoint(
    "azureopenai", "image_generation", {"resource_name": "res", "deployment_id": "d", "api_version": VERSION}
)
BASE = "https://res.openai.azure.com"
POLL = f"{BASE}/openai/operations/images/op-1?api-version={VERSION}"
CALL = ImageCall("An avocado chair", {}, {"n": 3, "size": "512x512"})
SUBMITTED = {"id": "op-1", "status": "notRunning", "created": 0}


def refused(call: Any) -> Any:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.outcome


def submit(body: Any = SUBMITTED, status: int = 202, **headers: str) -> Any:
    return AZURE.read_image(TARGET, CALL, answer(body, status, **headers))


def poll(body: Any, status: int = 200, **headers: str) -> Any:
    return AZURE.read_poll(TARGET, POLL, answer(body, status, **headers))


@pytest.mark.parametrize("version", [f"2023-{month:02}-01-preview" for month in (6, 7, 8, 9, 10)])
def test_the_previews_of_2023_submit(version: str) -> None:
    target = endpoint(
        "azureopenai", "image_generation", {"resource_name": "res", "deployment_id": "d", "api_version": version}
    )
    request = AZURE.image_request(target, CALL)
    assert (request.method, request.url) == ("POST", f"{BASE}/openai/images/generations:submit?api-version={version}")
    assert body_of(request) == {"prompt": "An avocado chair", "n": 3, "size": "512x512"}
    check_schema("azureopenai-2023.images.request", body_of(request))


def test_a_submit_says_where_to_poll_and_when() -> None:
    check_schema("azureopenai-2023.operation", SUBMITTED)
    found = submit(operation_location=POLL, retry_after="3")
    assert (found.state, found.operation_id, found.poll_url, found.delay_s) == ("SUBMITTED", "op-1", POLL, 3.0)


def test_a_submit_without_operation_location_is_polled_by_its_id() -> None:
    assert submit().poll_url == POLL
    assert submit(operation_location=f"/openai/operations/images/op-1?api-version={VERSION}").poll_url == POLL


def test_a_submit_that_names_no_operation_is_malformed() -> None:
    assert refused(lambda: submit({"status": "notRunning"})).code == "no_operation"


def test_a_submit_may_answer_with_the_end_already() -> None:
    found = submit({"id": "op-1", "status": "succeeded", "result": {"data": [{"url": "https://i"}]}}, 200)
    assert (found.state, found.urls) == ("SUCCEEDED", ("https://i",))


FOREIGN = [
    "https://evil.example/openai/operations/images/op-1",
    "http://res.openai.azure.com/openai/operations/images/op-1",
    "https://res.openai.azure.com:8443/openai/operations/images/op-1",
    "https://res.openai.azure.com.evil.example/op-1",
    "https://res.openai.azure.com@evil.example/op-1",
    "https://user@res.openai.azure.com/op-1",
    "//evil.example/op-1",
    "https://evil.example\\@res.openai.azure.com/op-1",
    "https://res.openai.azure.com\\.evil.example/op-1",
    "https://[res.openai.azure.com/op-1",
    "file:///etc/passwd",
    "https://res.openai.azure.com:99999/op-1",
    "https://res.openai.azure.com/op 1",
]


@pytest.mark.parametrize("location", FOREIGN)
def test_another_server_s_address_is_refused_before_the_key_is_sent(location: str) -> None:
    for call in (
        lambda: submit(operation_location=location),
        lambda: AZURE.poll_request(TARGET, location),
        lambda: AZURE.delete_request(TARGET, location),
    ):
        outcome = refused(call)
        assert (outcome.kind, outcome.code) == (OutcomeKind.REQUEST_REFUSED, "foreign_operation_location")


@given(st.text(max_size=60))
def test_no_location_leads_off_the_endpoint_s_own_server(location: str) -> None:
    try:
        request = AZURE.poll_request(TARGET, location)
    except Refused as exc:
        code, url = exc.outcome.code, ""
    else:
        code, url = "", request.url
    assert code == "foreign_operation_location" or url.startswith(f"{BASE}/")


def test_polls_and_deletes_carry_the_key_and_the_query() -> None:
    request = AZURE.poll_request(TARGET, POLL)
    assert (request.method, request.url, request.body) == ("GET", POLL, b"")
    assert request.headers["api-key"] == "key-0123456789abcdef"
    delete = AZURE.delete_request(TARGET, POLL)
    assert delete is not None
    assert (delete.method, delete.url) == ("DELETE", POLL)


@pytest.mark.parametrize("status", ["notRunning", "running"])
def test_an_operation_that_goes_on_is_polled_at_the_server_s_pace(status: str) -> None:
    body = {"created": 1, "id": "op-1", "status": status}
    check_schema("azureopenai-2023.operation", body)
    found = poll(body, retry_after="7")
    assert (found.state, found.delay_s, found.poll_url) == ("RUNNING", 7.0, POLL)
    assert poll(body).delay_s is None


def test_success_has_the_addresses_of_all_images() -> None:
    data = [{"url": "https://i/1"}, {"url": "https://i/2"}]
    found = poll({"created": 1, "id": "op-1", "status": "succeeded", "result": {"created": 1, "data": data}})
    assert (found.state, found.urls, found.operation_id) == ("SUCCEEDED", ("https://i/1", "https://i/2"), "op-1")


def test_one_image_may_fail_by_itself() -> None:
    error = {"code": "contentFilter", "message": "Filtered."}
    data = [{"url": "https://i/1"}, {"error": error}, {"url": "https://i/3"}]
    found = poll({"status": "succeeded", "result": {"data": data}})
    assert found.urls == ("https://i/1", "https://i/3")
    assert found.item_errors == ((1, "content_filter", "Filtered."),)


def test_if_all_images_failed_so_did_the_operation() -> None:
    found = poll({"status": "succeeded", "result": {"data": [{"error": {"code": "contentFilter", "message": "m"}}]}})
    assert (found.state, found.outcome.kind, found.outcome.code) == (
        "FAILED",
        OutcomeKind.INPUT_REFUSED,
        "content_filter",
    )


FILTERED = {"code": "contentFilter", "message": "Your task failed as a result of our safety system."}


@pytest.mark.parametrize(
    ("body", "status", "outcome_kind", "code"),
    [
        ({"status": "failed", "error": FILTERED}, 200, OutcomeKind.INPUT_REFUSED, "content_filter"),
        ({"status": "failed", "error": FILTERED}, 400, OutcomeKind.INPUT_REFUSED, "content_filter"),
        ({"created": 1, "error": FILTERED}, 400, OutcomeKind.INPUT_REFUSED, "content_filter"),
        ({"status": "failed", "error": {"code": "Oops", "message": "m"}}, 200, OutcomeKind.SERVER_ERROR, "oops"),
        ({"status": "failed"}, 200, OutcomeKind.SERVER_ERROR, "operation_failed"),
        ({"status": "canceled"}, 200, OutcomeKind.SERVER_ERROR, "operation_canceled"),
        ({"status": "cancelled"}, 200, OutcomeKind.SERVER_ERROR, "operation_canceled"),
        ({"status": "deleted"}, 200, OutcomeKind.REQUEST_REFUSED, "operation_deleted"),
        ({"error": {"code": "404", "message": "Resource not found"}}, 404,
         OutcomeKind.REQUEST_REFUSED, "operation_not_found"),
    ],
)  # fmt: skip
def test_every_other_end_is_a_failure_that_says_why(
    body: Any, status: int, outcome_kind: OutcomeKind, code: str
) -> None:
    found = poll(body, status)
    assert (found.state, found.outcome.kind, found.outcome.code) == ("FAILED", outcome_kind, code)
    assert found.outcome.message


@pytest.mark.parametrize(
    ("body", "status", "outcome_kind", "code"),
    [
        (
            {"error": {"code": "InvalidApiVersion", "message": "m"}},
            400,
            OutcomeKind.REQUEST_REFUSED,
            "invalid_api_version",
        ),
        ({"error": {"code": "401", "message": "m"}}, 401, OutcomeKind.UNAUTHORIZED, "invalid_api_key"),
        ("", 500, OutcomeKind.SERVER_ERROR, "server_error"),
        (
            {"error": {"code": "429", "message": "Retry after 4 seconds"}},
            429,
            OutcomeKind.RATE_LIMITED,
            "rate_limit_exceeded",
        ),
        ({"id": "op-1", "status": "dreaming"}, 200, OutcomeKind.MALFORMED, "unknown_state"),
        ({"id": "op-1"}, 200, OutcomeKind.MALFORMED, "unknown_state"),
        ({"id": "op-1", "status": "succeeded"}, 200, OutcomeKind.MALFORMED, "missing_data"),
        ("<html>", 200, OutcomeKind.MALFORMED, "not_json"),
        ([], 200, OutcomeKind.MALFORMED, "not_an_object"),
    ],
)
def test_an_answer_that_is_no_operation_is_refused_and_the_operation_may_still_run(
    body: Any, status: int, outcome_kind: OutcomeKind, code: str
) -> None:
    outcome = refused(lambda: poll(body, status))
    assert (outcome.kind, outcome.code) == (outcome_kind, code)


def test_a_filtered_prompt_is_refused_at_the_submit() -> None:
    body = {"error": {"code": "contentFilter", "message": "Your prompt was filtered."}}
    assert refused(lambda: submit(body, 400)).code == "content_filter"
