"""``penstock endpoint``: put, get, list, delete and test inference endpoints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli import output
from penstock.cli.options import AsJson, InferenceId
from penstock.config.endpoints.documents import parse_document
from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.file import fill_variables
from penstock.config.endpoints.registry import Registry
from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.errors import ConfigurationError, InferenceFailed
from penstock.config.redis import connect
from penstock.config.settings import Settings, load_settings
from penstock.config.urls import state_url

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Inference endpoints: put, get, list, delete, test.",
)


@app.command()
def put(
    task_type: Annotated[
        str,
        typer.Argument(
            metavar="TASK_TYPE",
            help="text_embedding, completion, chat_completion, image_generation or image_embedding.",
            show_default=False,
        ),
    ],
    inference_id: InferenceId,
    file: Annotated[str, typer.Option("--file", "-f", metavar="F", help="The body: JSON, YAML or TOML; - is stdin.")],
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Store it without a test call.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store an endpoint, or replace it, after one tiny test call.

    The body is Elasticsearch's: service, service_settings, task_settings, chunking_settings. Environment variables
    stand as ${NAME}, so that the file needs no key. When the body is wrong or the call fails, nothing is stored.

    [bold]Examples[/]
      penstock endpoint put text_embedding docs-embeddings --file openai.json
      penstock endpoint put completion chat --file azure.yaml --no-verify
    """
    settings = load_settings()
    body = _read_body(file)
    validate_endpoint(task_type, inference_id, body, settings)  # before any broker is started for it
    with _registry(settings) as registry:
        found = None
        if not no_verify:
            found = _tried(registry.prepare(task_type, inference_id, body), settings)
        endpoint = registry.put(task_type, inference_id, body)
        shown = registry.shown(endpoint)
    if as_json:
        output.print_json({**shown, "verified": found})
        return
    print(f"stored endpoint {inference_id}: {_described(endpoint)}")
    print(_findings(found) if found else "not tested (--no-verify)")


@app.command()
def get(
    inference_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The endpoint's id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show an endpoint as Elasticsearch does, without its secrets; without an id, all of them.

    [bold]Examples[/]
      penstock endpoint get docs-embeddings
      penstock endpoint get --json
    """
    if inference_id is None:
        _list(as_json)
        return
    with _registry(load_settings()) as registry:
        output.print_json(registry.shown(registry.find(inference_id)))


@app.command(name="list")
def list_endpoints(as_json: AsJson = False) -> None:
    """List all endpoints, those of PENSTOCK_ENDPOINTS_FILE too.

    [bold]Examples[/]
      penstock endpoint list
      penstock endpoint list --json
    """
    _list(as_json)


@app.command()
def delete(inference_id: InferenceId, as_json: AsJson = False) -> None:
    """Remove an endpoint and its secrets.

    [bold]Examples[/]
      penstock endpoint delete docs-embeddings
    """
    with _registry(load_settings()) as registry:
        registry.delete(inference_id)
    if as_json:
        output.print_json({"acknowledged": True})
    else:
        print(f"deleted endpoint {inference_id}")


@app.command(name="test")
def try_endpoint(inference_id: InferenceId, as_json: AsJson = False) -> None:
    """Make one tiny live call: does it answer, with which model, how fast, with which limits.

    The call does not pass through the endpoint's lane. An image generation costs too much to be tried.

    [bold]Examples[/]
      penstock endpoint test docs-embeddings
    """
    settings = load_settings()
    with _registry(settings) as registry:
        endpoint = registry.get(inference_id)
        found = _verified(endpoint)
    if as_json:
        output.print_json({"inference_id": inference_id, **found})
    else:
        print(f"{inference_id}: {_described(endpoint)}")
        print(_findings(found))


@contextlib.contextmanager
def _registry(settings: Settings) -> Iterator[Registry]:
    from penstock.workers.embedded.broker import broker

    with broker(settings) as urls, connect(state_url(urls.broker, urls.results)) as client:
        yield Registry(client, settings)


def _read_body(file: str) -> Any:
    if file == "-":
        return fill_variables(parse_document(sys.stdin.buffer.read(), "stdin"), "stdin")
    try:
        data = Path(file).read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"--file: {file} cannot be read: {exc.strerror}") from exc
    return fill_variables(parse_document(data, file), file)


def _verified(endpoint: Endpoint) -> dict[str, Any]:
    from penstock.tasks.request.verify import verify

    with output.err.status(f"one test call to {endpoint.inference_id} ..."):
        return verify(endpoint, load_settings().connect_timeout_s)


def _tried(endpoint: Endpoint, settings: Settings) -> dict[str, Any]:
    try:
        return _verified(endpoint)
    except InferenceFailed as exc:
        raise InferenceFailed(f"{exc}. Nothing was stored; --no-verify stores it untried", *exc.args[1:]) from None


def _list(as_json: bool) -> None:
    with _registry(load_settings()) as registry:
        found = registry.read()
        shown = [registry.shown(endpoint) for endpoint in found.endpoints]
    if as_json:
        damaged = [
            {"inference_id": name, "code": error.code, "message": str(error)}
            for name, error in found.unreadable.items()
        ]
        output.print_json({"endpoints": shown, **({"unreadable": damaged} if damaged else {})})
        return
    if found.endpoints:
        headings = ["id", "task type", "service", "model", "limit", "address"]
        output.print_table(headings, [_row(each) for each in found.endpoints])
    elif not found.unreadable:
        output.note("no endpoints yet: `penstock endpoint put TASK_TYPE ID --file F` makes one")
    for error in found.unreadable.values():
        output.note(str(error))


def _row(endpoint: Endpoint) -> list[Any]:
    return [
        endpoint.inference_id,
        endpoint.task_type,
        endpoint.service,
        _first(endpoint, "model_id", "model", "deployment_id", "provider"),
        _limit(endpoint),
        _first(endpoint, "url", "target", "resource_name", "region"),
    ]


def _first(endpoint: Endpoint, *names: str) -> str:
    found = [str(endpoint.service_settings[name]) for name in names if endpoint.service_settings.get(name)]
    return found[0] if found else ""


def _limit(endpoint: Endpoint) -> str:
    rates = endpoint.rate_limit
    parts = [
        f"{value:,.10g} {unit}/min"
        for value, unit in ((rates.requests_per_minute, "requests"), (rates.tokens_per_minute, "tokens"))
        if value is not None
    ]
    return ", ".join(parts) or "none"


def _described(endpoint: Endpoint) -> str:
    model = _first(endpoint, "model_id", "model", "deployment_id", "provider")
    parts = [f"{endpoint.task_type} by {endpoint.service}", model, _limit(endpoint)]
    return ", ".join(part for part in parts if part)


def _findings(found: dict[str, Any]) -> str:
    parts = []
    if found["checked"]:
        parts.append(f"answered in {found['latency_ms']:.0f} ms")
    if found.get("model"):
        parts.append(f"model {found['model']}")
    if found.get("dimensions"):
        parts.append(f"{found['dimensions']} dimensions")
    parts += [f"{name.replace('_', ' ')} {value:,.10g}" for name, value in found.get("limits", {}).items()]
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in found.get("info", {}).items()]
    text = "test call: " + ", ".join(parts) if parts else "test call: none made"
    return f"{text}\n{found['note']}" if found.get("note") else text
