"""What an operator is told when a lane is parked."""

from __future__ import annotations

import pytest

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.lanes.reasons import parking_reason

ENDPOINT = Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, secrets={"api_key": "sk-SENTINEL-0123456789"})


def test_it_is_the_code_the_status_the_providers_words_and_what_to_do_next() -> None:
    outcome = Outcome(OutcomeKind.QUOTA_EXHAUSTED, "insufficient_quota", "You exceeded your current quota", 429)
    assert parking_reason(ENDPOINT, outcome) == (
        "insufficient_quota (HTTP 429): You exceeded your current quota. "
        "Next: add credit or raise the spending limit at the provider, then `penstock lane resume docs`"
    )


@pytest.mark.parametrize(
    ("outcome_kind", "remedy"),
    [
        (OutcomeKind.QUOTA_EXHAUSTED, "add credit"),
        (OutcomeKind.UNAUTHORIZED, "put the endpoint again with a valid key"),
        (OutcomeKind.NOT_FOUND, "correct the endpoint's model, deployment or URL"),
        (OutcomeKind.RATE_LIMITED, "wait, or ask the provider why"),
        (OutcomeKind.SERVER_ERROR, "wait, or ask the provider why"),
    ],
)
def test_each_cause_has_its_remedy_and_every_remedy_ends_with_resume(outcome_kind: OutcomeKind, remedy: str) -> None:
    why = parking_reason(ENDPOINT, Outcome(outcome_kind))
    assert remedy in why
    assert why.endswith("then `penstock lane resume docs`")


def test_without_code_status_or_words_it_still_says_what_happened() -> None:
    assert parking_reason(ENDPOINT, Outcome(OutcomeKind.UNAUTHORIZED)).startswith("unauthorized. Next: ")


def test_no_secret_of_the_endpoint_is_in_it() -> None:
    assert "SENTINEL" not in parking_reason(ENDPOINT, Outcome(OutcomeKind.UNAUTHORIZED, "401", "wrong key", 401))
