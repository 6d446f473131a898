"""The stand-in's options."""

import inspect
from pathlib import Path

import pytest

from penstock.config.errors import ConfigurationError
from penstock.stand_in.command import command
from penstock.stand_in.faults import KINDS
from penstock.stand_in.limits import is_window
from penstock.stand_in.options import Options, options
from penstock.stand_in.state import StandIn


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("fault", ["500=0.03", "reset=0.01"], {"500": 0.03, "reset-before": 0.01}),
        ("fault", "500=0.03,nan=0.1", {"500": 0.03, "nan": 0.1}),
        ("fault", {"500": 0.5}, {"500": 0.5}),
        ("poison", ["A=B=500"], {"A=B": "500"}),
        ("poison", {"BAD": "content_filter"}, {"BAD": "content-filter"}),
        ("api_key", "a, b", ("a", "b")),
        ("api_key", ["a", "b,c"], ("a", "b", "c")),
        ("retry_after", "ms,message", ("ms", "message")),
        ("rpm", "600", 600.0),
        ("rpm", None, None),
        ("charge_failed", True, True),
    ],
)
def test_values_are_read_from_command_lines_and_from_json_alike(name, given, expected):
    assert getattr(options({name: given}), name) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rpm": 0}, "--rpm: Input should be greater than 0"),
        ({"window": "leaky"}, "--window: give bucket-1s"),
        ({"fault": "boom=0.1"}, "--fault: no fault is called 'boom'"),
        ({"fault": "500=0.7,502=0.7"}, "--fault: rates are from 0 to 1"),
        ({"fault": "500"}, "--fault: give NAME=VALUE"),
        ({"retry_after": "later"}, "--retry-after: 'later' is none of header"),
        ({"refuse": "500"}, "--refuse: give one of insufficient_quota"),
        ({"image_states": "done"}, "--image-states: give some of notRunning"),
        ({"speed": 1}, "there is no option --speed"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(given, message):
    with pytest.raises(ConfigurationError) as caught:
        options(given)
    assert message in str(caught.value)


def test_all_wrong_options_are_told_together():
    with pytest.raises(ConfigurationError, match=r"--rpm: .*; --window: "):
        options({"rpm": -1, "window": "x"})


def test_changes_keep_the_rest_and_a_wrong_one_changes_nothing():
    before = options({"rpm": 60, "fault": {"500": 0.1}})
    after = before.changed({"tpm": 100, "retry-after": ["none"]})
    assert (after.rpm, after.tpm, after.fault, after.retry_after) == (60, 100, {"500": 0.1}, ("none",))
    stand_in = StandIn(before)
    with pytest.raises(ConfigurationError):
        stand_in.configure({"rpm": 90, "bogus": 1})
    assert stand_in.options is before


def test_every_option_has_a_help_text_and_a_place_on_the_command_line():
    on_the_line = inspect.signature(command).parameters
    for name, field in Options.model_fields.items():
        assert field.description
        assert name in on_the_line


def test_a_changed_limit_starts_full_and_other_changes_keep_what_was_used():
    now = [0.0]
    stand_in = StandIn(options({"rpm": 60}), clock=lambda: now[0])
    assert stand_in.quota("m", "k").admit(0, 1) is None
    stand_in.configure({"latency_ms": 5})
    assert stand_in.quota("m", "k").admit(0, 1) is not None
    stand_in.configure({"rpm": 61})
    assert stand_in.quota("m", "k").admit(0, 1) is None


@pytest.mark.parametrize(("by", "shared"), [("all", True), ("model", False), ("key", False)])
def test_a_quota_is_for_all_or_for_each_model_or_key(by, shared):
    stand_in = StandIn(options({"rpm": 60, "quota_by": by}))
    assert (stand_in.quota("one", "first") is stand_in.quota("two", "second")) == shared


def test_a_cool_down_starts_when_it_is_named_and_ends_by_itself():
    now = [100.0]
    stand_in = StandIn(options({}), clock=lambda: now[0])
    now[0] = 110.0
    stand_in.configure({"cool_down_s": 5})
    assert stand_in.cool_until - stand_in.now() == 5
    stand_in.reset()
    assert stand_in.cool_until == 0


DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "stand-in.md"


def test_the_document_has_every_option_as_it_is():
    text = DOCUMENT.read_text()
    for name, field in Options.model_fields.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `--{name.replace('_', '-')}` |")), "")
        assert row.endswith(f"| {field.description} |"), name


def test_the_document_has_every_kind_of_fault_and_every_window():
    text = DOCUMENT.read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []
    windows = ["bucket-1s", "bucket-minute", "gcra", "fixed-10s", "window-10s", "sliding-60s", "minute", "none"]
    assert [name for name in windows if f"`{name}`" not in text or not is_window(name)] == []
