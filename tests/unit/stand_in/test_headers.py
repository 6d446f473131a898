"""What the stand-in says of its quotas."""

import pytest

from penstock.stand_in.headers import go_duration, quota_headers, retry_headers, spoken_delay, style_of
from penstock.stand_in.limits import Gauge

GAUGES = {"requests": Gauge(60, 10, 1.2, 1.2), "tokens": Gauge(150_000, 2500, 16, 0.0064)}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3723.5, "1h2m3.5s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds, text):
    assert go_duration(seconds) == text


def test_openai_tells_limit_remaining_and_reset_of_a_minute():
    assert quota_headers("openai", GAUGES, False, 1) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "1.2s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "7ms",
    }


def test_azure_tells_what_remains_of_its_window_and_bare_seconds_with_a_429():
    served = {"x-ratelimit-remaining-requests": "8", "x-ratelimit-remaining-tokens": "2484"}
    assert quota_headers("azure", GAUGES, False, 1) == served
    refused = {"x-ratelimit-reset-requests": "2", "x-ratelimit-reset-tokens": "1"}
    assert quota_headers("azure", GAUGES, True, 1) == served | refused


def test_the_rare_spelling_comes_with_a_429_only():
    assert quota_headers("azure-reset", GAUGES, False, 1) == {}
    assert quota_headers("azure-reset", GAUGES, True, 1) == {
        "x-rate-limit-reset-requests": "2",
        "x-rate-limit-reset-tokens": "1",
    }


def test_nonsense_is_another_for_each_request_and_never_a_number_to_trust():
    seen = {value for number in range(8) for value in quota_headers("nonsense", GAUGES, False, number).values()}
    assert {"-1", "0", "", "soon"} <= seen


def test_no_style_and_no_limit_say_nothing():
    assert quota_headers("none", GAUGES, True, 1) == {}
    assert quota_headers("openai", {}, True, 1) == {}


@pytest.mark.parametrize(
    ("style", "vendor", "expected"),
    [
        ("auto", "openai", "openai"),
        ("auto", "azure", "azure"),
        ("auto", "bedrock", "none"),
        ("azure", "openai", "azure"),
    ],
)
def test_auto_is_each_vendors_own_style(style, vendor, expected):
    assert style_of(style, vendor) == expected


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        (("header",), {"retry-after": "3"}),
        (("ms",), {"retry-after-ms": "2300"}),
        (("header", "ms"), {"retry-after": "3", "retry-after-ms": "2300"}),
        (("date",), {"retry-after": "Thu, 01 Jan 1970 00:00:13 GMT"}),
        (("message",), {}),
        (("none",), {}),
    ],
)
def test_a_delay_is_told_in_the_ways_asked_for(ways, expected):
    assert retry_headers(ways, 2.2991, 10.0) == expected


def test_a_delay_in_words_is_never_zero():
    assert (spoken_delay(0.976), spoken_delay(0.0), spoken_delay(7.5)) == ("976ms", "1ms", "7.5s")
