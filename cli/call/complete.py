"""``penstock complete``: one task, from a prompt to its answer, printed as it comes if wished."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any

import typer
from celery.result import AsyncResult

from penstock.cli import output
from penstock.cli.call.stdin import read_text
from penstock.cli.call.task_client import PATIENCE_S, TaskClient, read_settings, task_client
from penstock.cli.options import AsJson, InferenceId, VendorSettings
from penstock.config.endpoints.services import TaskType
from penstock.config.errors import CutStream, InputInvalid
from penstock.config.names import COMPLETE_TASK
from penstock.workers.results.types import CompleteResult


def command(
    inference_id: InferenceId,
    text: Annotated[str, typer.Argument(metavar="[TEXT|-]", help="The prompt; - is stdin.", show_default=False)] = "-",
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream", help="Print the answer as it comes. [default: for chat_completion endpoints]"
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before the prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    settings: VendorSettings = None,
    as_json: AsJson = False,
) -> None:
    """Complete a prompt and print the answer."""
    prompt = read_text(text)
    if not prompt.strip():
        raise InputInvalid("there is no prompt: give one, or - and a text on stdin")
    given: Any = prompt
    if system is not None:
        given = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    overrides = read_settings(settings or [])
    if max_tokens is not None:
        overrides["max_tokens"] = max_tokens
    with task_client(inference_id, (TaskType.COMPLETION, TaskType.CHAT_COMPLETION)) as found:
        streams = found.endpoint.task_type is TaskType.CHAT_COMPLETION if stream is None else stream
        streams = streams and not as_json
        result = found.send(COMPLETE_TASK, given, stream=streams, **overrides)
        if streams:
            _print_stream(found, result)
        else:
            with output.err.status("completing ..."):
                found.wait(result)
        answer: CompleteResult = found.wait(result)
    _print(answer, as_json=as_json, streamed=streams)


def _print_stream(found: TaskClient, result: AsyncResult) -> None:
    """Print the first choice as it comes; others are printed at the end."""
    from penstock.tasks.completion.streaming import StreamTimedOut, stream

    shown = 0
    with found.revoking(result):
        while True:
            position = 0
            try:
                for delta in stream(result, PATIENCE_S):
                    if delta.restart:
                        _write("\n")
                        output.warn("the worker died; another one begins the answer anew")
                        position = shown = 0
                    elif delta.index == 0:
                        _write(delta.text[max(0, shown - position) :])
                        position += len(delta.text)
                        shown = max(shown, position)
                break
            except StreamTimedOut:  # read on, from the start, past what is printed
                found.check(2 * PATIENCE_S)
            except CutStream:
                _write("\n")
                raise
    _write("\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print(answer: CompleteResult, *, as_json: bool, streamed: bool) -> None:
    if as_json:
        output.print_json(dataclasses.asdict(answer) | {"text": answer.text, "finish_reason": answer.finish_reason})
        return
    for choice in answer.choices[1 if streamed else 0 :]:
        if len(answer.choices) > 1:
            print(f"--- {choice.index}")
        print(choice.text or "".join(f"{call}\n" for call in choice.tool_calls).rstrip("\n"))
    if streamed and answer.choices and not answer.text:
        for call in answer.choices[0].tool_calls:
            print(call)
    if answer.finish_reason not in ("stop", None):
        output.warn(f"the answer ended for its {answer.finish_reason}")
    parts = [answer.model, f"{answer.usage.total_tokens} tokens" if answer.usage.total_tokens else ""]
    output.note(", ".join(part for part in parts if part), "dim")
