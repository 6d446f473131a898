"""The command's frame: its table, its help, how it ends."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

from penstock.cli import output
from penstock.cli.main import COMMANDS, CommandEntry, load, main
from penstock.config.errors import BrokerUnavailable, ConfigurationError, EndpointInvalid, InferenceFailed


def ended(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    shown = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert name in shown
        assert entry.help[:30] in shown
    code = (
        "import sys\nfrom penstock.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'celery', 'kombu', 'redis', 'httpx', 'numpy', 'pydantic', 'pyarrow', 'cryptography'}\n"
        "print('imported', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "imported []"


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"penstock {metadata.version('penstock')}\n"


def test_an_unknown_command_is_refused_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("backfil") == 2
    assert "No such command 'backfil'. Did you mean backfill?" in capsys.readouterr().err


def test_a_command_that_cannot_be_imported_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="`penstock x` is not part of this installation"):
        load("x", CommandEntry("penstock.cli.no_such_command", "", ()))
    (tmp_path / "needs_missing.py").write_text("import penstock_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="needs the Python package 'penstock_missing_dependency'"):
        load("x", CommandEntry("needs_missing", "", ()))


def test_every_command_that_is_there_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name, entry in COMMANDS.items():
        try:
            command = load(name, entry)
        except ConfigurationError:
            continue
        assert command.help, name
        assert "Args:" not in command.help
        assert entry.examples[0] in command.epilog
        assert ended(name, "--help") == 0
        assert entry.examples[0].split()[1] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (ConfigurationError("set X"), 2, "error: set X"),
        (BrokerUnavailable("no broker"), 2, "error: no broker"),
        (InferenceFailed("refused", "server_error", 500, 3), 1, "error: refused"),
        (EndpointInvalid(["a"]), 2, "error: Validation Failed: 1: a;"),
        (EndpointInvalid(["a", "b"]), 2, "error: Validation Failed:\n  1: a\n  2: b"),
        (FileNotFoundError(2, "No such file or directory", "f.txt"), 1, "error: f.txt: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("[bold]x"), 1, "error: a defect of Penstock: ValueError: [bold]x; run `penstock --traceback ...`"),
        (typer.Exit(1), 1, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_whatever_a_command_raises_is_an_exit_code_and_one_message(
    capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, line: str
) -> None:
    def command() -> None:
        raise raised

    assert output.run(command) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert "Traceback" not in shown.err


def test_the_origin_of_a_defect_is_printed_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ValueError("x")

    assert output.run(command, show_traceback=lambda: True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_lost_broker_is_named_whoever_raised_it(capsys: pytest.CaptureFixture[str]) -> None:
    import kombu.exceptions
    import redis.exceptions

    for error in (redis.exceptions.ConnectionError("gone"), kombu.exceptions.OperationalError("gone")):

        def command(error: Exception = error) -> None:
            raise error

        assert output.run(command) == 2
        assert "the broker cannot be reached (gone)" in capsys.readouterr().err


def test_fail_ends_a_command_with_the_errors_own_code() -> None:
    for error, code in ((ConfigurationError("x"), 2), ("x", 1)):
        with pytest.raises(typer.Exit) as caught:
            output.fail(error)
        assert caught.value.exit_code == code


def test_json_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": float("nan"), "text": "x" * 300, 5: None})
    assert capsys.readouterr().out == '{\n  "a": null,\n  "text": "' + "x" * 300 + '",\n  "5": null\n}\n'


def test_tables_are_whole_lines_where_a_program_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["a", "b"], [["x" * 150, None], [1, "y"]])
    assert capsys.readouterr().out == f"A{' ' * 149}  B\n{'x' * 150}\n1{' ' * 149}  y\n"
