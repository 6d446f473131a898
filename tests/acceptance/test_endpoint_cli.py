"""``penstock endpoint`` and ``penstock config`` as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SECRET = "sk-acceptance0123456789"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def penstock(home: Path) -> Run:
    """Run the command in a process of its own, as from a shell."""

    def run(*argv: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli.main", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "COLUMNS": "100", **env},
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def on_valkey(penstock: Run, broker_url: str) -> Run:
    """The command with a configured broker: a real, empty server."""
    return penstock


@pytest.fixture
def endpoint(stand_in: Any) -> Callable[..., dict[str, Any]]:
    """Bodies that point at a stand-in."""

    def make(**settings: Any) -> dict[str, Any]:
        url = stand_in(dimensions=64).url + "/v1"
        settings = {"api_key": SECRET, "model_id": "stand-in-embedding", "url": url, **settings}
        return {"service": "openai", "service_settings": settings}

    return make


UNREACHABLE = {"api_key": SECRET, "model_id": "m", "url": "http://127.0.0.1:1/v1"}


def test_put_makes_one_test_call_and_stores(on_valkey: Run, endpoint: Any, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text(json.dumps(endpoint(api_key="${STAND_IN_KEY}")))
    done = on_valkey("endpoint", "put", "text_embedding", "docs", "--file", str(file), "--json", STAND_IN_KEY=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["inference_id"] == "docs"
    assert answer["verified"]["dimensions"] == 64
    assert answer["verified"]["latency_ms"] > 0
    assert "api_key" not in answer["service_settings"]

    shown = json.loads(on_valkey("endpoint", "get", "docs").stdout)
    assert shown == {name: value for name, value in answer.items() if name != "verified"}
    listed = json.loads(on_valkey("endpoint", "list", "--json").stdout)
    assert listed == {"endpoints": [shown]}

    tested = json.loads(on_valkey("endpoint", "test", "docs", "--json").stdout)
    assert tested["checked"] is True
    assert tested["dimensions"] == 64


def test_people_read_sentences_and_tables(on_valkey: Run, endpoint: Any) -> None:
    done = on_valkey("endpoint", "put", "text_embedding", "docs", "-f", "-", stdin=json.dumps(endpoint()))
    assert done.returncode == 0, done.stderr
    assert "stored endpoint docs: text_embedding by openai, stand-in-embedding, 3,000 requests/min" in done.stdout
    assert "64 dimensions" in done.stdout
    lines = on_valkey("endpoint", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "TASK", "TYPE", "SERVICE", "MODEL", "LIMIT", "ADDRESS"]
    assert lines[1].startswith(
        "docs  text_embedding  openai   stand-in-embedding  3,000 requests/min  http://127.0.0.1:"
    )
    assert on_valkey("endpoint", "delete", "docs").stdout == "deleted endpoint docs\n"
    done = on_valkey("endpoint", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no endpoints yet" in done.stderr


def test_when_the_test_call_fails_nothing_is_stored(on_valkey: Run) -> None:
    body = json.dumps({"service": "openai", "service_settings": UNREACHABLE})
    done = on_valkey("endpoint", "put", "text_embedding", "docs", "--file", "-", stdin=body)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the test call of endpoint [docs] failed: the host cannot be reached" in done.stderr
    assert "Nothing was stored; --no-verify stores it untried" in done.stderr
    assert json.loads(on_valkey("endpoint", "list", "--json").stdout) == {"endpoints": []}


def test_no_verify_stores_it_untried_and_a_later_test_fails_clearly(on_valkey: Run) -> None:
    body = json.dumps({"service": "openai", "service_settings": UNREACHABLE})
    done = on_valkey("endpoint", "put", "text_embedding", "docs", "--file", "-", "--no-verify", stdin=body)
    assert done.returncode == 0
    assert "not tested (--no-verify)" in done.stdout
    done = on_valkey("endpoint", "test", "docs")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the test call of endpoint [docs] failed: the host cannot be reached")


def test_a_refused_key_is_told_with_what_to_do(on_valkey: Run, stand_in: Any) -> None:
    url = stand_in(api_key=["the-right-one"]).url
    body = {"service": "openai", "service_settings": {"api_key": SECRET, "model_id": "m", "url": url}}
    done = on_valkey("endpoint", "put", "text_embedding", "docs", "--file", "-", stdin=json.dumps(body))
    assert done.returncode == 1
    assert "failed with status 401" in done.stderr
    assert "check the key" in done.stderr


def test_images_are_not_made_to_try_an_endpoint(on_valkey: Run) -> None:
    body = json.dumps({"service": "openai", "service_settings": UNREACHABLE})
    done = on_valkey("endpoint", "put", "image_generation", "pictures", "--file", "-", "--json", stdin=body)
    assert done.returncode == 0, done.stderr
    verified = json.loads(done.stdout)["verified"]
    assert verified["checked"] is False
    assert "nothing was sent" in verified["note"]


def test_all_faults_of_a_body_are_printed_a_line_each(on_valkey: Run) -> None:
    body = {"service": "openai", "service_settings": {"dimensions": 0, "api_keey": SECRET}, "more": 1}
    done = on_valkey("endpoint", "put", "text_embedding", "Docs", "--file", "-", stdin=json.dumps(body))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "error: Validation Failed:"
    assert "  1: Invalid inference_id; 'Docs' can contain" in lines[1]
    assert "  2: [service_settings] does not contain the required setting [model_id]" in lines
    assert any("Invalid value [0]. [dimensions] must be a positive integer" in line for line in lines)
    assert any("settings [{api_keey=***}] unknown to the [openai] service" in line for line in lines)
    assert any("settings [{more=1}] unknown to the [openai] service" in line for line in lines)


@pytest.mark.parametrize(
    ("argv", "stdin", "message"),
    [
        (
            ("put", "text_embedding", "x", "--file", "-"),
            '{"a": 1,\n "b" 2}',
            "stdin: line 2, column 6: this is not",
        ),
        (("put", "text_embedding", "x", "--file", "-"), "", "stdin: it is empty"),
        (("put", "text_embedding", "x", "--file", "-"), "[]", "Model configuration must be an object"),
        (("put", "text_embedding", "x", "--file", "-"), '{"k": "${NO_SUCH}"}', "variables that are not set: NO_SUCH"),
        (("put", "text_embedding", "x", "--file", "/no/such"), "", "--file: /no/such cannot be read: No such file"),
        (("put", "text_embedding", "x", "--file", "/"), "", "--file: / cannot be read: Is a directory"),
        (("put", "text_embedding", "x"), "", "--file"),
        (("get", "absent"), "", "Inference endpoint not found [absent]"),
        (("delete", "absent"), "", "Inference endpoint not found [absent]"),
        (("test", "absent"), "", "Inference endpoint not found [absent]"),
        (("frobnicate",), "", "No such command 'frobnicate'"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_why(on_valkey: Run, argv: tuple[str, ...], stdin: str, message: str) -> None:
    done = on_valkey("endpoint", *argv, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_what_get_prints_can_be_put_again(on_valkey: Run, endpoint: Any) -> None:
    body = endpoint(rate_limit={"requests_per_minute": 77}, max_inputs_per_request=5)
    on_valkey("endpoint", "put", "text_embedding", "docs", "-f", "-", stdin=json.dumps(body))
    shown = json.loads(on_valkey("endpoint", "get", "docs").stdout)
    shown["service_settings"]["api_key"] = SECRET
    done = on_valkey("endpoint", "put", "text_embedding", "docs", "-f", "-", "--no-verify", stdin=json.dumps(shown))
    assert done.returncode == 0, done.stderr
    del shown["service_settings"]["api_key"]
    assert json.loads(on_valkey("endpoint", "get", "docs").stdout) == shown


def test_endpoints_of_the_file_are_listed_and_read_only(on_valkey: Run, tmp_path: Path) -> None:
    file = tmp_path / "endpoints.toml"
    file.write_text(
        '[endpoints.filed]\ntask_type = "text_embedding"\nservice = "openai"\n'
        'service_settings = { api_key = "${STAND_IN_KEY}", model_id = "m" }\n'
    )
    env = {"PENSTOCK_ENDPOINTS_FILE": str(file), "STAND_IN_KEY": SECRET}
    assert json.loads(on_valkey("endpoint", "list", "--json", **env).stdout)["endpoints"][0]["inference_id"] == "filed"
    done = on_valkey("endpoint", "delete", "filed", **env)
    assert done.returncode == 2
    assert "read-only (PENSTOCK_ENDPOINTS_FILE): edit the file" in done.stderr
    done = on_valkey("endpoint", "list", PENSTOCK_ENDPOINTS_FILE=str(file))
    assert done.returncode == 2
    assert "environment variables that are not set: STAND_IN_KEY" in done.stderr


def test_without_a_broker_the_embedded_one_keeps_endpoints_for_the_next_command(penstock: Run, home: Path) -> None:
    body = json.dumps({"service": "openai", "service_settings": UNREACHABLE})
    done = penstock("endpoint", "put", "text_embedding", "docs", "--file", "-", "--no-verify", stdin=body)
    assert done.returncode == 0, done.stderr
    assert json.loads(penstock("endpoint", "get", "docs").stdout)["service_settings"]["model_id"] == "m"
    assert (home / "secret.key").stat().st_mode & 0o777 == 0o600
    done = penstock("endpoint", "test", "docs", PENSTOCK_SECRET_KEY="another key than before")
    assert done.returncode == 2
    assert "set PENSTOCK_SECRET_KEY" in done.stderr


def test_a_broker_that_is_down_is_named_without_its_password(penstock: Run) -> None:
    done = penstock("endpoint", "list", PENSTOCK_BROKER_URL="redis://user:hush@127.0.0.1:1/0")
    assert done.returncode == 2
    assert "redis://user:***@127.0.0.1:1/0" in done.stderr
    assert "hush" not in done.stderr


def test_config_shows_every_setting_and_where_it_came_from(penstock: Run, home: Path) -> None:
    done = penstock("config", "--json", PENSTOCK_CONCURRENCY="7", PENSTOCK_BROKER_URL="redis://:hush@h/0")
    assert done.returncode == 0
    rows = {row["variable"]: row for row in json.loads(done.stdout)["settings"]}
    assert rows["PENSTOCK_CONCURRENCY"]["value"] == 7
    assert rows["PENSTOCK_CONCURRENCY"]["source"] == "environment"
    assert rows["PENSTOCK_BROKER_URL"]["value"] == "redis://:***@h/0"
    assert rows["PENSTOCK_SECRET_KEY"] == rows["PENSTOCK_SECRET_KEY"] | {"value": None, "source": "default"}
    assert rows["PENSTOCK_HOME"]["value"] == str(home)
    assert all(row["description"] for row in rows.values())


def test_config_names_wrong_and_unknown_variables(penstock: Run) -> None:
    done = penstock("config", PENSTOCK_CONCURRENCY="many", PENSTOCK_CONCURENCY="5", PENSTOCK_SECRET_KEY="hush")
    assert done.returncode == 2
    assert "PENSTOCK_CONCURENCY is no setting of Penstock: did you mean PENSTOCK_CONCURRENCY?" in done.stderr
    assert "PENSTOCK_CONCURRENCY: must be a whole number, got 'many'" in done.stderr
    assert "PENSTOCK_SECRET_KEY: too short" in done.stderr
    assert "PENSTOCK_LOG_LEVEL" in done.stdout
    assert "hush" not in done.stdout + done.stderr


def test_a_wrong_setting_stops_any_command_before_it_begins(penstock: Run) -> None:
    done = penstock("endpoint", "list", PENSTOCK_CONNECT_TIMEOUT_S="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: PENSTOCK_CONNECT_TIMEOUT_S: must be a number, got 'soon'\n"
