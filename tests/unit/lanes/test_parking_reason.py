"""What an operator is told when a lane is parked."""

from __future__ import annotations

import pytest

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import TaskType
from penstock.workers.lanes.outcome import Fate, Outcome
from penstock.workers.lanes.reasons import parking_reason

ENDPOINT = Endpoint("docs", TaskType.TEXT_EMBEDDING, "openai", {}, secrets={"api_key": "sk-SENTINEL-0123456789"})


def test_it_is_the_code_the_status_the_providers_words_and_what_to_do_next() -> None:
    outcome = Outcome(Fate.QUOTA_EXHAUSTED, "insufficient_quota", "You exceeded your current quota", 429)
    assert parking_reason(ENDPOINT, outcome) == (
        "insufficient_quota (HTTP 429): You exceeded your current quota. "
        "Next: add credit or raise the spending limit at the provider, then `penstock lane resume docs`"
    )


@pytest.mark.parametrize(
    ("fate", "remedy"),
    [
        (Fate.QUOTA_EXHAUSTED, "add credit"),
        (Fate.UNAUTHORIZED, "put the endpoint again with a valid key"),
        (Fate.NOT_FOUND, "correct the endpoint's model, deployment or URL"),
        (Fate.RATE_LIMITED, "wait, or ask the provider why"),
        (Fate.SERVER_ERROR, "wait, or ask the provider why"),
    ],
)
def test_each_cause_has_its_remedy_and_every_remedy_ends_with_resume(fate: Fate, remedy: str) -> None:
    why = parking_reason(ENDPOINT, Outcome(fate))
    assert remedy in why
    assert why.endswith("then `penstock lane resume docs`")


def test_without_code_status_or_words_it_still_says_what_happened() -> None:
    assert parking_reason(ENDPOINT, Outcome(Fate.UNAUTHORIZED)).startswith("unauthorized. Next: ")


def test_no_secret_of_the_endpoint_is_in_it() -> None:
    assert "SENTINEL" not in parking_reason(ENDPOINT, Outcome(Fate.UNAUTHORIZED, "401", "wrong key", 401))
