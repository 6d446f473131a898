"""``penstock chunk`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.config.endpoints.registry import Registry
from penstock.config.redis import connect
from penstock.config.settings import load_settings

TEXT = "One two three four five six seven eight. " * 5


def penstock(*args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", *args], input=stdin, capture_output=True, timeout=60, check=False
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(autouse=True)
def endpoint(broker_url: str, home: Path) -> str:
    """An endpoint ``docs`` whose chunks have up to 20 words."""
    body = {
        "service": "openai",
        "service_settings": {"api_key": "any", "model_id": "m"},
        "chunking_settings": {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 0},
    }
    with connect(broker_url) as client:
        Registry(client, load_settings()).put("text_embedding", "docs", body)
    return "docs"


def test_a_text_is_split_and_shown_as_a_table() -> None:
    done = penstock("chunk", "docs", TEXT)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["N", "START", "END", "WORDS", "TEXT"]
    assert [row.split()[:4] for row in rows] == [
        ["0", "0", "82", "16"],
        ["1", "82", "164", "16"],
        ["2", "164", "205", "8"],
    ]
    assert rows[0].endswith("One two three four five six seven eight. One two three four…")


def test_stdin_is_read_and_json_written() -> None:
    text = "Größe 😀. " * 15
    for args in (("-",), ()):
        done = penstock("chunk", "docs", *args, "--json", stdin=text.encode())
        assert done.returncode == 0, done.stderr
        chunks = json.loads(done.stdout)
        assert "".join(chunk["text"] for chunk in chunks) == text
        assert [chunk["text"] for chunk in chunks] == [text[chunk["start"] : chunk["end"]] for chunk in chunks]


def test_an_empty_text_is_one_empty_chunk() -> None:
    assert json.loads(penstock("chunk", "docs", "", "--json").stdout) == [{"start": 0, "end": 0, "text": ""}]


@pytest.mark.parametrize(
    ("args", "stdin", "message"),
    [
        (("dcos", "a"), None, "Inference endpoint not found [dcos]: did you mean docs?"),
        (("docs",), b"\xff\xfe", "the text on stdin is not UTF-8 (byte 0)"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    args: tuple[str, ...], stdin: bytes | None, message: str
) -> None:
    done = penstock("chunk", *args, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
