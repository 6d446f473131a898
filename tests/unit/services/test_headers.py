"""Headers and messages to limits and delays."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tasks.services.wire import headers
from penstock.workers.lanes.outcome import HeaderLimits

NOW = 1_445_412_420.0  # 2015-10-21 07:27:00 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("8.64s", 8.64),
        ("59.999s", 59.999),
        ("1h", 3600.0),
        ("90µs", 90e-6),
        ("5", None),
        ("", None),
        ("s", None),
        ("6m0s!", None),
        ("x6m", None),
        ("-1s", None),
    ],
)
def test_a_go_duration_is_read_to_the_millisecond(text: str, seconds: float | None) -> None:
    assert headers.go_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("5.5", 5.5),
        ("6m0s", 360.0),
        (" 7 ", 7.0),
        ("0", None),
        ("0s", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("1_0", None),
        ("1700000000", None),  # a moment, not a duration
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_reset_is_a_duration_or_bare_seconds_and_nonsense_is_no_news(text: str | None, seconds: float | None) -> None:
    assert headers.seconds(text) == seconds


@pytest.mark.parametrize(
    ("sent", "message", "delay"),
    [
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after-ms": "0", "retry-after": "9"}, "", 9.0),
        ({"retry-after-ms": "junk", "retry-after": "9"}, "", 9.0),
        ({"x-ms-retry-after-ms": "250"}, "", 0.25),
        ({"retry-after": "5"}, "", 5.0),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": "0"}, "", None),
        ({"retry-after": "-1"}, "", None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 60.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:26:00 GMT"}, "", None),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, "", None),
        # The server's own clock says what its date means.
        ({"retry-after": "Wed, 21 Oct 2015 09:00:10 GMT", "date": "Wed, 21 Oct 2015 09:00:00 GMT"}, "", 10.0),
        ({"retry-after": "86400"}, "", 86400.0),
        ({"retry-after": "99999999999"}, "", None),
        ({"x-ratelimit-reset-requests": "5"}, "", 5.0),
        ({"x-ratelimit-reset-tokens": "6m0s"}, "", 360.0),
        ({"x-rate-limit-reset-tokens": "55"}, "", 55.0),
        ({"x-ratelimit-reset-tokens": "-1"}, "", None),
        ({}, "Rate limit reached for gpt-4o-mini ... Please try again in 976ms.", 0.976),
        ({}, "Please try again in 1.5s. Visit ...", 1.5),
        ({}, "Please try again in 6m0s.", 360.0),
        ({}, "Please try again in 1h2m3s", 3723.0),
        ({}, "... pricing tier. Please retry after 5 seconds. To increase", 5.0),
        ({}, "Please retry after 86400 seconds", 86400.0),
        ({}, "Please wait 2 minutes and try again", 120.0),
        ({}, "try again in 20 milliseconds", 0.02),
        ({}, "Retry in 3 hours", 10800.0),
        ({}, "Please try again in 0ms.", None),
        ({}, "Try again in 5 apples", None),
        ({}, "wait for it", None),
        # The message speaks of this request, a reset of the whole bucket.
        ({"x-ratelimit-reset-tokens": "6m0s"}, "Please try again in 976ms.", 0.976),
        ({"retry-after": "3"}, "Please try again in 976ms.", 3.0),
    ],
)
def test_the_delay_is_the_first_valid_of_headers_message_and_resets(
    sent: dict[str, str], message: str, delay: float | None
) -> None:
    found = headers.delay(sent, message, NOW)
    assert found == (None if delay is None else pytest.approx(delay))


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (  # litellm's proxy: the key's limit is the tighter one
            {
                "x-ratelimit-api_key-limit-requests": "240", "x-ratelimit-api_key-remaining-requests": "12",
                "x-ratelimit-model_per_key-limit-requests": "600",
                "x-ratelimit-model_per_key-remaining-requests": "571",
            },
            HeaderLimits(limit_requests=240, remaining_requests=12),
        ),
        (  # what the provider behind it says beside that
            {
                "x-ratelimit-limit-tokens": "60000", "x-ratelimit-remaining-tokens": "100",
                "x-ratelimit-team-limit-tokens": "1000000", "x-ratelimit-team-remaining-tokens": "999000",
            },
            HeaderLimits(limit_tokens=60000, remaining_tokens=100),
        ),
        (  # a scope without a remainder says less than one with it
            {
                "x-ratelimit-user-limit-requests": "5", "x-rate-limit-limit-requests": "60",
                "x-rate-limit-remaining-requests": "9",
            },
            HeaderLimits(limit_requests=60, remaining_requests=9),
        ),
        ({"x-ratelimit-limit-requests-per-day": "5", "x-ratelimit--limit-requests": "5"}, HeaderLimits()),
    ],
)  # fmt: skip
def test_of_a_gateways_scopes_the_tightest_counts(sent: dict[str, str], wanted: HeaderLimits) -> None:
    assert headers.limits(sent) == wanted


RESETS = {"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "30s"}


@pytest.mark.parametrize(
    ("more", "message", "delay"),
    [
        ({}, "on tokens per min (TPM)", 30.0),
        ({}, "on requests per min (RPM)", 0.012),
        ({}, "exceeded token rate limit of your current tier", 30.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-remaining-requests": "7"}, "", 30.0),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-remaining-requests": "0"}, "", 0.012),
        ({}, "", 0.012),
    ],
)
def test_of_two_resets_the_one_that_was_hit_counts(more: dict[str, str], message: str, delay: float) -> None:
    assert headers.delay(RESETS | more, message) == pytest.approx(delay)


def test_openai_s_documented_headers_are_read() -> None:
    sent = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert headers.limits(sent) == HeaderLimits(60, 150000, 59, 149984, 1.0, 360.0)


def test_azure_s_headers_are_read_without_limits_and_with_bare_resets() -> None:
    sent = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-remaining-tokens": "1199",
        "x-ratelimit-reset-requests": "5",
    }
    assert headers.limits(sent) == HeaderLimits(remaining_requests=0, remaining_tokens=1199, reset_requests_s=5.0)


@pytest.mark.parametrize("nonsense", ["-1", "0", "none", "", "99999999999999999999", "NaN"])
def test_a_limit_that_makes_no_sense_is_no_news_and_neither_is_its_remainder(nonsense: str) -> None:
    sent = {"x-ratelimit-limit-tokens": nonsense, "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "-1"}
    assert headers.limits(sent) == HeaderLimits()


@pytest.mark.parametrize(("sent", "said"), [("true", True), ("false", False), ("True", True), ("1", None), ("", None)])
def test_x_should_retry_is_a_word(sent: str, said: bool | None) -> None:
    assert headers.should_retry({"x-should-retry": sent}) is said
    assert headers.should_retry({}) is None


NAMES = [
    "retry-after", "retry-after-ms", "x-ms-retry-after-ms", "date", "x-should-retry",
    *(f"{start}-{what}-{kind}" for start in ("x-ratelimit", "x-rate-limit")
      for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
]  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=string.digits + ".smh-+eE :,", max_size=25),
    st.floats().map(str),
    st.integers().map(str),
    st.just("Wed, 21 Oct 2015 07:28:00 GMT"),
    st.just("Wed, 21 Oct 99999 07:28:00 +9999"),
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.text(max_size=80), st.one_of(st.none(), st.just(NOW)))
def test_no_header_and_no_message_makes_the_reading_fail(sent: dict[str, str], message: str, now: float | None) -> None:
    delay = headers.delay(sent, message, now)
    assert delay is None or 0 < delay <= headers.ABSURD_S
    limits = headers.limits(sent)
    for value in (limits.limit_requests, limits.limit_tokens, limits.reset_requests_s, limits.reset_tokens_s):
        assert value is None or value > 0
    for value in (limits.remaining_requests, limits.remaining_tokens):
        assert value is None or value >= 0
    assert headers.should_retry(sent) in (True, False, None)
