"""The documents say what is so: commands parse, code compiles, endpoints are valid, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.config.endpoints.file import EndpointsFile
from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.settings import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
EXAMPLES = REPOSITORY / "examples"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for language, text in BLOCK.findall(path.read_text()):
            if language in languages:
                yield named(path), text


def commands() -> list[tuple[str, str]]:
    """Every distinct ``penstock`` command of the documents' console blocks and of the examples' docstrings."""
    lines = [(name, line) for name, text in blocks("console", "bash", "sh") for line in text.splitlines()]
    lines += [(named(path), line) for path in EXAMPLES.rglob("*.py") for line in path.read_text().splitlines()]
    found: dict[str, str] = {}
    for name, line in lines:
        command = re.match(r"\s*(?:\$ )?((?:[A-Z_]+=\S+ )*penstock(?: .*)?)$", line)
        if command:
            found.setdefault(command[1].strip(), name)
    return [(name, line) for line, name in found.items()]


def arguments(line: str) -> list[str]:
    """Return the command's arguments; assignments, comments, redirections and pipes are the shell's."""
    words = shlex.split(line, comments=True)
    words = words[words.index("penstock") + 1 :]
    ends = [n for n, word in enumerate(words) if word[0] in "<>|&"]
    return words[: ends[0]] if ends else words


@pytest.mark.parametrize(("where", "line"), commands(), ids=lambda text: text)
def test_a_command_of_the_documents_parses(where: str, line: str) -> None:
    words = [word for word in arguments(line) if word not in {"...", "…"}]
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0, f"{where}: {line}\n{done.output}\n{done.exception!r}"


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("where", "code"), list(blocks("python")))
def test_code_of_the_documents_compiles(where: str, code: str) -> None:
    compile(code, where, "exec")


def test_json_of_the_documents_is_json_and_endpoints_in_it_are_valid() -> None:
    for where, text in blocks("json"):
        body = json.loads(text)
        if isinstance(body, dict) and "service_settings" in body:
            assert validate_endpoint(_task_type(where, body), "an-id", body, load_settings()), where


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    text = BLOCK.sub("", path.read_text())
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", sorted((EXAMPLES / "endpoints").glob("*.json")), ids=named)
def test_a_body_of_the_examples_is_valid(path: Path) -> None:
    body = json.loads(path.read_text())
    endpoint = validate_endpoint(_task_type(path.stem, body), path.stem, body, load_settings())
    assert endpoint.service == body["service"]


def test_the_endpoints_file_of_the_examples_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_ENDPOINTS_FILE", str(EXAMPLES / "endpoints.toml"))
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-the-environment")
    endpoints = EndpointsFile(load_settings()).read().endpoints
    assert set(endpoints) == {"docs-embeddings", "chat", "local"}
    assert "a-secret" not in repr(endpoints)


def test_the_readme_shows_what_the_demo_printed() -> None:
    shown = re.search(r"<!-- demo -->\n```text\n(.*?)```\n<!-- /demo -->", (REPOSITORY / "README.md").read_text(), re.S)
    assert shown
    assert "read a zip archive" in shown[1]


def _task_type(hint: str, body: dict[str, object]) -> str:
    if "image" in hint:
        return "image_generation"
    return "chat_completion" if "chat" in hint or "gpt" in json.dumps(body) else "text_embedding"
