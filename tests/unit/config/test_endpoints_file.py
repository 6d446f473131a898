"""The read-only file of endpoints."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from penstock.config.endpoints.file import EndpointsFile, fill_variables
from penstock.config.errors import ConfigurationError, EndpointInvalid
from penstock.config.settings import Settings

TOML = """
[endpoints.docs]
task_type = "text_embedding"
service = "fake"
service_settings = { model = "m", api_key = "${FAKE_KEY}" }

[endpoints.chat]
task_type = "completion"
service = "fake"
service_settings = { model = "m", api_key = "literal-$${X}" }
"""
YAML = """
endpoints:
  - inference_id: docs
    task_type: text_embedding
    service: fake
    service_settings: {model: m, api_key: "${FAKE_KEY}"}
  - inference_id: chat
    task_type: completion
    service: fake
    service_settings: {model: m, api_key: "literal-$${X}"}
"""


def file_of(tmp_path: Path, text: str, name: str = "endpoints.toml") -> EndpointsFile:
    (tmp_path / name).write_text(text)
    return EndpointsFile(Settings(home=tmp_path, endpoints_file=tmp_path / name))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "from-the-environment")


@pytest.mark.parametrize(("name", "text"), [("e.toml", TOML), ("e.yaml", YAML), ("e.yml", YAML)])
def test_tables_and_lists_give_the_same_endpoints(tmp_path: Path, name: str, text: str) -> None:
    endpoints = file_of(tmp_path, text, name).read().endpoints
    assert set(endpoints) == {"docs", "chat"}
    assert endpoints["docs"].secrets == {"api_key": "from-the-environment"}
    assert endpoints["chat"].secrets == {"api_key": "literal-${X}"}
    assert endpoints["docs"].version > 0


def test_json_and_a_single_endpoint_as_get_shows_it(tmp_path: Path) -> None:
    body = {"inference_id": "one", "task_type": "completion", "service": "fake"}
    body["service_settings"] = {"model": "m", "api_key": "k"}  # type: ignore[assignment]
    for document in (body, [body], {"endpoints": [body]}):
        assert set(file_of(tmp_path, json.dumps(document), "e.json").read().endpoints) == {"one"}


def test_without_a_file_there_are_no_endpoints(tmp_path: Path) -> None:
    assert EndpointsFile(Settings(home=tmp_path)).read().endpoints == {}


def test_missing_variables_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_KEY")
    with pytest.raises(ConfigurationError, match=r"environment variables that are not set: FAKE_KEY, OTHER"):
        file_of(tmp_path, TOML.replace("literal-$${X}", "${OTHER}")).read()


def test_a_key_pasted_as_a_variables_name_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="no variable's name") as caught:
        fill_variables({"api_key": "${sk-hush}"}, "f")
    assert "hush" not in str(caught.value)


def test_all_faults_of_all_endpoints_are_told_with_their_place(tmp_path: Path) -> None:
    text = TOML.replace('model = "m", ', "").replace("[endpoints.chat]", "[endpoints.Chat]")
    with pytest.raises(EndpointInvalid) as caught:
        file_of(tmp_path, text).read()
    where = f"{tmp_path}/endpoints.toml: endpoint "
    assert [fault.removeprefix(where)[:40] for fault in caught.value.faults] == [
        "[docs]: [service_settings] does not cont",
        "[Chat]: Invalid inference_id; 'Chat' can",
        "[Chat]: [service_settings] does not cont",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoints = 5", "a list or a table of endpoints"),
        ("[endpoints]\ndocs = 5", "an endpoint must be an object"),
        ("[endpoints.docs]\ninference_id = 'other'", "has another inference_id"),
        ("[endpoints.docs", "not valid TOML"),
    ],
)
def test_a_file_of_another_shape_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        file_of(tmp_path, text).read()


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(EndpointInvalid, match="stands twice"):
        file_of(tmp_path, YAML.replace("inference_id: chat", "inference_id: docs"), "e.yaml").read()


def test_a_file_that_is_not_there_names_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_ENDPOINTS_FILE: .*No such file"):
        EndpointsFile(Settings(home=tmp_path, endpoints_file=tmp_path / "no.toml")).read()


def touch(path: Path, text: str, seconds: int) -> None:
    path.write_text(text)
    os.utime(path, (2_000_000_000 + seconds, 2_000_000_000 + seconds))


def test_changes_are_seen_and_a_slip_of_the_editor_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "endpoints.toml"
    file = file_of(tmp_path, TOML)
    first = file.read()
    assert file.read() is first
    touch(path, "[endpoints.docs", 1)
    with caplog.at_level(logging.ERROR):
        assert file.read() is first
        assert file.read() is first
    assert (
        len([record for record in caplog.records if "going on with the endpoints as they were" in record.message]) == 1
    )
    touch(path, TOML.replace("endpoints.chat", "endpoints.talk"), 2)
    second = file.read()
    assert set(second.endpoints) == {"docs", "talk"}
    assert second.mark != first.mark
    assert second.endpoints["docs"].version > first.endpoints["docs"].version
    path.unlink()
    assert file.read() is second


def test_another_value_of_a_variable_is_another_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_of(tmp_path, TOML).read()
    monkeypatch.setenv("FAKE_KEY", "another")
    assert file_of(tmp_path, TOML).read().mark != first.mark
