"""The PENSTOCK_ variables: values, defaults, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from penstock.config.errors import ConfigurationError
from penstock.config.settings import Settings, default_home, load_settings, read_settings, variable


def test_without_variables_every_setting_has_its_default() -> None:
    settings = load_settings()
    assert settings.broker_url is None
    assert settings.concurrency == 100
    assert settings.key_prefix == "penstock:"
    assert settings.log_level == "INFO"


def test_every_field_is_described_for_people() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if name.endswith("_s"):
            assert "econds" in field.description, name


def test_values_are_read_from_the_environment_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CONCURRENCY", "7")
    monkeypatch.setenv("PENSTOCK_BROKER_URL", "redis://:pw@localhost/1")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "debug")
    settings = load_settings()
    assert settings.concurrency == 7
    assert settings.log_level == "DEBUG"
    assert settings.broker_url is not None
    assert settings.broker_url.get_secret_value() == "redis://:pw@localhost/1"
    assert "pw" not in repr(settings)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", "")
    monkeypatch.setenv("PENSTOCK_CONCURRENCY", "")
    assert load_settings().broker_url is None


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().concurrency = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("CONCURRENCY", "many", "must be a whole number, got 'many'"),
        ("CONCURRENCY", "1.5", "must be a whole number"),
        ("CONCURRENCY", "0", "must be greater than or equal to 1"),
        ("CONCURRENCY", "10001", "must be less than or equal to 10000"),
        ("CONNECT_TIMEOUT_S", "soon", "must be a number"),
        ("CONNECT_TIMEOUT_S", "nan", "must be a finite number"),
        ("REQUEST_TIMEOUT_S", "0", "must be greater than 0"),
        ("RESULT_EXPIRES_S", "-1", "must be greater than or equal to 1"),
        ("KEY_PREFIX", "a*b", "may hold letters, digits"),
        ("LOG_LEVEL", "loud", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("BROKER_URL", "http://u:hidden@h", "must start with redis://"),
        ("BROKER_URL", "localhost:6379", "must start with redis://"),
        ("RESULT_BACKEND", "amqp://h", "must start with redis://, rediss://, redis+socket://"),
        ("SECRET_KEY", "short", "too short: give 16 characters or more"),
        ("VISIBILITY_TIMEOUT_S", "7", "must be at least twice PENSTOCK_HEARTBEAT_S (4)"),
        ("HOME", "~nobody-of-this-name/x", "give an absolute path"),
    ],
)
def test_a_wrong_value_names_its_variable_and_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    monkeypatch.setenv(f"PENSTOCK_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"PENSTOCK_{name}: ")
    assert remedy in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_all_wrong_values_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CONCURRENCY", "x")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "x")
    monkeypatch.setenv("PENSTOCK_VISIBILITY_TIMEOUT_S", "1")
    settings, faults = read_settings()
    assert set(faults) == {"concurrency", "log_level", "visibility_timeout_s"}
    assert settings.concurrency == 100


def test_rabbitmq_needs_a_redis_for_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", "amqp://guest:guest@h//")
    with pytest.raises(ConfigurationError, match=r"^PENSTOCK_RESULT_BACKEND: must name a Redis"):
        load_settings()
    monkeypatch.setenv("PENSTOCK_RESULT_BACKEND", "redis://h/0")
    assert load_settings().result_backend is not None


def test_the_home_is_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home() == tmp_path / ".local" / "share" / "penstock"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_home() == tmp_path / "data" / "penstock"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # the specification says to ignore it
    assert default_home() == tmp_path / ".local" / "share" / "penstock"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr("sys.platform", "darwin")
    assert default_home() == tmp_path / "Library" / "Application Support" / "penstock"


def test_a_relative_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", "here")
    assert load_settings().home == tmp_path / "here"


def test_a_field_knows_its_variable() -> None:
    assert variable("broker_url") == "PENSTOCK_BROKER_URL"
