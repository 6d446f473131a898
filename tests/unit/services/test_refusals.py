"""The table of refusals: status, code and words to an outcome."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from support.wire import answer, service

RATE, QUOTA, AUTH, GONE = (
    OutcomeKind.RATE_LIMITED,
    OutcomeKind.QUOTA_EXHAUSTED,
    OutcomeKind.UNAUTHORIZED,
    OutcomeKind.NOT_FOUND,
)
LARGE, INPUT, REQUEST, SERVER = (
    OutcomeKind.TOO_LARGE,
    OutcomeKind.INPUT_REFUSED,
    OutcomeKind.REQUEST_REFUSED,
    OutcomeKind.SERVER_ERROR,
)


def refuse(body: Any, status: int, **headers: str) -> Outcome:
    return service("openai").refusal(answer(body, status, **headers))


def error(message: str = "m", code: Any = None, kind: Any = None, param: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "code", "kind", "outcome_kind"),
    [
        (429, "rate_limit_exceeded", "tokens", RATE),
        (429, "rate_limit_exceeded", "requests", RATE),
        # The type is coarse: it says insufficient_quota for what is only pace.
        (429, "rate_limit_exceeded", "insufficient_quota", RATE),
        (429, "slow_down", "insufficient_quota", RATE),
        (503, "slow_down", None, RATE),
        (429, "429", None, RATE),
        (429, None, None, RATE),
        (429, "insufficient_quota", "insufficient_quota", QUOTA),
        (429, "credit_balance_exhausted", "insufficient_quota", QUOTA),
        (429, "organization_spend_limit_exceeded", "insufficient_quota", QUOTA),
        (429, "project_spend_limit_exceeded", "insufficient_quota", QUOTA),
        (429, "organization_usage_limit_exceeded", "insufficient_quota", QUOTA),
        (429, "billing_hard_limit_reached", "insufficient_quota", QUOTA),
        (400, "billing_hard_limit_reached", "invalid_request_error", QUOTA),
        (429, None, "insufficient_quota", QUOTA),
        (429, "429", "insufficient_quota", QUOTA),
        (402, None, None, QUOTA),
        (403, "insufficient_quota", None, QUOTA),
    ],
)
def test_pace_waits_and_billing_parks_whatever_the_coarse_type(
    status: int, code: Any, kind: Any, outcome_kind: OutcomeKind
) -> None:
    assert refuse(error(code=code, kind=kind), status).kind is outcome_kind


def test_a_429_code_we_do_not_know_is_terminal_only_without_a_retry_after() -> None:
    body = error(code="team_allowance_used_up", kind="insufficient_quota")
    assert refuse(body, 429).kind is QUOTA
    assert refuse(body, 429, retry_after="20").kind is RATE


UPGRADE = "You exceeded your current quota, please check your plan and billing details."
TPM = "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 43000."
SUM = "Requested 453357 tokens, max 300000 tokens per request"
CONTEXT = (
    "This model's maximum context length is 8192 tokens, however you requested 10000 tokens (10000 in your prompt)."
)
LLAMA = "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
AZURE_429 = (
    "Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded call rate "
    "limit of your current OpenAI S0 pricing tier. Please retry after 5 seconds."
)


@pytest.mark.parametrize(
    ("status", "body", "outcome_kind", "code"),
    [
        (429, error(UPGRADE), QUOTA, "insufficient_quota"),
        (429, error(AZURE_429, "429"), RATE, "rate_limit_exceeded"),
        (429, error("System is experiencing high demand"), RATE, "capacity"),
        (503, error("The engine is currently overloaded, please try again later"), RATE, "capacity"),
        (529, error("Overloaded"), RATE, "capacity"),
        (429, error(TPM, "rate_limit_exceeded", "tokens"), LARGE, "request_too_large"),
        (400, error(SUM, "max_tokens_per_request", "max_tokens_per_request"), LARGE, "max_tokens_per_request"),
        (413, "Request Entity Too Large", LARGE, "request_too_large"),
        # Too long, in everybody's words.
        (400, error(CONTEXT, None, "invalid_request_error"), INPUT, "input_too_long"),
        (400, error("m", "context_length_exceeded"), INPUT, "input_too_long"),
        (500, error(LLAMA, 500, "server_error"), INPUT, "input_too_long"),
        (400, error("the request exceeds the available context size, try increasing it", 400,
                    "exceed_context_size_error"), INPUT, "input_too_long"),
        (413, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 1000",
               "error_type": "Validation"}, INPUT, "input_too_long"),
        (400, {"object": "error", "message": "This model's maximum context length is 512 tokens. However, you "
               "requested 600 tokens in the input for embedding generation. Please reduce the length of the input.",
               "type": "BadRequestError", "code": 400}, INPUT, "input_too_long"),
        (400, {"error": "the input length exceeds the context length"}, INPUT, "input_too_long"),
        (500, {"error": "input length exceeds maximum context length"}, INPUT, "input_too_long"),
        (400, error("Input text exceeds 8192 tokens"), INPUT, "input_too_long"),
        # Filters, at any status.
        (400, error(code="content_filter"), INPUT, "content_filter"),
        (400, error(code="content_policy_violation"), INPUT, "content_filter"),
        (500, {"status": 500, "code": "content_filter", "message": "m", "param": "prompt"}, INPUT, "content_filter"),
        (400, {"error": {"code": "contentFilter", "message": "m"}}, INPUT, "content_filter"),
        (400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}, INPUT, "content_filter"),
        # Statuses.
        (401, error("Incorrect API key provided: sk-x", "invalid_api_key"), AUTH, "invalid_api_key"),
        (401, error("m", "401"), AUTH, "invalid_api_key"),
        (403, "", AUTH, "forbidden"),
        (403, error("m", "unsupported_country_region_territory"), AUTH, "unsupported_country_region_territory"),
        (404, error("The model `x` does not exist", "model_not_found"), GONE, "model_not_found"),
        (404, error("The API deployment for this resource does not exist.", "DeploymentNotFound"), GONE,
         "deployment_not_found"),
        (404, {"error": "model 'nomic' not found, try pulling it first"}, GONE, "model_not_found"),
        (404, "404 page not found", GONE, "not_found"),
        (400, error("invalid model ID", "model_not_found", param="model"), GONE, "model_not_found"),
        (408, "", SERVER, "request_timeout"),
        (409, "", SERVER, "conflict"),
        (424, "", SERVER, "failed_dependency"),
        (500, error("The server had an error", None, "server_error"), SERVER, "server_error"),
        (500, "", SERVER, "server_error"),
        (502, "<html><title>Bad Gateway</title></html>", SERVER, "server_error"),
        (503, error("Loading model", 503, "unavailable_error"), SERVER, "server_error"),
        (501, error("This server does not support embeddings.", 501, "not_supported_error"), REQUEST,
         "not_supported_error"),
        (301, "", REQUEST, "redirected"),
        (405, "", REQUEST, "http_405"),
        (418, "", REQUEST, "http_418"),
        (100, "", OutcomeKind.MALFORMED, "unexpected_status"),
        # 400 and 422: the input's fault unless a parameter is named.
        (400, error("bad", None, "invalid_request_error", None), INPUT, "invalid_request"),
        (400, error("bad", None, "invalid_request_error", "input"), INPUT, "invalid_request"),
        (400, error("bad", None, "invalid_request_error", "messages[0].content"), INPUT, "invalid_request"),
        (400, error("bad", None, "invalid_request_error", "dimensions"), REQUEST, "invalid_request"),
        (400, error("bad", "invalid_value", "invalid_request_error", "encoding_format"), REQUEST, "invalid_value"),
        (400, error("bad", None, None, "user"), REQUEST, "invalid_request"),
        (400, error("bad", "unknown_parameter", None, "foo"), REQUEST, "unknown_parameter"),
        (400, error("Unrecognized request argument supplied: foo"), REQUEST, "invalid_request"),
        (400, error("This model does not support specifying dimensions."), REQUEST, "invalid_request"),
        (400, error("you must provide a model parameter"), REQUEST, "invalid_request"),
        (400, error("m", "InvalidApiVersion"), REQUEST, "invalid_api_version"),
        (400, error("The api-version query parameter is invalid.", "BadRequest"), REQUEST, "invalid_request"),
        (400, error("m", "OperationNotSupported"), REQUEST, "operation_not_supported"),
        (400, {"detail": "There was an error parsing the body"}, INPUT, "invalid_request"),
        (422, {"detail": [{"loc": ["body", "input", 3], "msg": "m"}]}, INPUT, "unprocessable_input"),
        (422, {"detail": [{"loc": ["body", "dimensions"], "msg": "m"}]}, REQUEST, "unprocessable_input"),
        (422, "", INPUT, "unprocessable_input"),
    ],
)  # fmt: skip
def test_an_answer_has_one_fate_and_one_code(status: int, body: Any, outcome_kind: OutcomeKind, code: str) -> None:
    found = refuse(body, status)
    assert (found.kind, found.code, found.status) == (outcome_kind, code, status)
    assert found.message


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ("Too many inputs. The max number of inputs is 1.  We hope to increase the number of inputs per", 1),
        ("Too many inputs. The max number of inputs is 16. We hope to increase", 16),
        ("'$.input' is invalid. array too long. Expected an array with maximum length 2048, but got an array with "
         "length 3000 instead.", 2048),
        ("batch size 64 > maximum allowed batch size 32", 32),
        ("invalid request: total number of texts must be at most 96 - received 97", 96),
        ("The batch size limit is 128", 128),
    ],
)  # fmt: skip
def test_the_count_of_inputs_that_a_server_allows_is_learnt(message: str, most: int) -> None:
    found = refuse(error(message, None, "invalid_request_error", "input"), 400)
    assert (found.kind, found.code, found.max_inputs) == (LARGE, "too_many_inputs", most)


@pytest.mark.parametrize(
    ("message", "param", "index"),
    [
        ("bad", "$.input[3]", 3),
        ("bad", "input[12]", 12),
        ("bad", "input.7", 7),
        ("bad", "texts[2]", 2),
        ("'$.input[5]' is invalid. Please check the API reference.", None, 5),
        ("Invalid 'input[3]': maximum context length is 8192 tokens.", "input", 3),
        ("bad", "input", None),
        ("bad", "messages[1]", None),
        ("output.7 is bad", None, None),
    ],
)
def test_the_one_input_at_fault_is_named(message: str, param: Any, index: int | None) -> None:
    found = refuse(error(message, None, "invalid_request_error", param), 400)
    assert (found.kind, found.input_index) == (INPUT, index)


@pytest.mark.parametrize(
    "words", ["exceed", "exceeded ", "try again in ", "wait  ", "1m", "not support", "model ", "a1"]
)
def test_no_message_takes_long_to_read(words: str) -> None:
    started = time.process_time()
    refuse(error(words * 200_000), 400)
    refuse(words * 200_000, 429)
    # Of the processor's time, not the clock's. Squares of these lengths would take hours.
    assert time.process_time() - started < 20


def test_a_400_does_not_wait_merely_because_of_a_retry_after() -> None:
    assert refuse(error(), 400, retry_after="5").delay_s is None
    assert refuse(error(), 503, retry_after="5").delay_s == 5.0


def test_the_limits_the_delay_and_x_should_retry_come_along() -> None:
    found = refuse(error(AZURE_429, "429"), 429, x_ratelimit_remaining_requests="0", x_should_retry="false")
    assert (found.delay_s, found.limits.remaining_requests, found.should_retry) == (5.0, 0, False)


def test_a_day_s_delay_is_told_as_it_is() -> None:
    assert refuse(error("Please retry after 86400 seconds.", "429"), 429).delay_s == 86400.0


def test_a_date_without_the_server_s_own_is_read_by_the_injected_clock() -> None:
    dated = type(service("openai"))(clock=lambda: 1_445_412_420.0)
    found = dated.refusal(answer("", 503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"))
    assert found.delay_s == 60.0


def test_a_message_names_the_parameter_its_value_and_the_filtered_categories() -> None:
    assert refuse(error("Bad value", param="dimensions"), 400).message == "Bad value (parameter dimensions)"
    filtered = {"error": {"code": "content_filter", "message": "No.",
                          "innererror": {"content_filter_result": {"hate": {"filtered": True}}}}}  # fmt: skip
    assert refuse(filtered, 400).message == "No. (filtered: hate)"


@given(
    st.integers(300, 599),
    st.sampled_from([None, "", "rate_limit_exceeded", "insufficient_quota", "x", 17, [], {}]),
    st.text(max_size=60),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry"]), st.text(max_size=10)),
)
def test_every_answer_has_a_fate_and_is_never_taken_for_success(
    status: int, code: Any, message: str, headers: dict[str, str]
) -> None:
    found = refuse(error(message, code), status, **headers)
    assert found.kind not in (OutcomeKind.OK, OutcomeKind.NOT_SENT, OutcomeKind.NO_ANSWER)
    assert found.code
    assert found.status == status
