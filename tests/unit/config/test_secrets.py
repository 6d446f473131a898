"""Sealing: with a variable, with a file, never readable by another key, never readable by others."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from penstock.config.endpoints.secrets import FILE, EncryptedSecrets, SecretBox, file_key
from penstock.config.errors import ConfigurationError
from penstock.config.settings import Settings

VALUES = {"api_key": "sk-hush"}


def box(home: Path, key: str | None = None) -> SecretBox:
    return SecretBox(Settings(home=home, secret_key=key))


def test_what_is_encrypted_is_decrypted_in_another_process_of_the_same_home(tmp_path: Path) -> None:
    token = box(tmp_path).encrypt(VALUES, "docs")
    assert "hush" not in token
    assert box(tmp_path).decrypt(token, "docs", "endpoint [docs]") == VALUES


@pytest.mark.parametrize(
    "key",
    ["a phrase that people remember", Fernet.generate_key().decode(), "ключ" * 5],
    ids=["phrase", "fernet", "cyrillic"],
)
def test_any_string_is_a_key_and_hosts_need_nothing_else_in_common(tmp_path: Path, key: str) -> None:
    token = box(tmp_path / "a", key).encrypt(VALUES, "docs")
    assert box(tmp_path / "b", key).decrypt(token, "docs", "endpoint [docs]") == VALUES
    assert not (tmp_path / "a" / FILE).exists()


def test_another_key_is_a_clear_error_that_names_the_variable(tmp_path: Path) -> None:
    token = box(tmp_path, "one key of sixteen").encrypt(VALUES, "docs")
    for other in (box(tmp_path, "another of sixteen"), box(tmp_path)):
        with pytest.raises(ConfigurationError, match=r"endpoint \[docs\].*set PENSTOCK_SECRET_KEY") as caught:
            other.decrypt(token, "docs", "endpoint [docs]")
        assert "hush" not in str(caught.value)


def test_a_token_is_decrypted_only_for_what_it_was_encrypted_for(tmp_path: Path) -> None:
    token = box(tmp_path).encrypt(VALUES, "https://api.example")
    with pytest.raises(ConfigurationError, match="changed in the broker by something other than Penstock"):
        box(tmp_path).decrypt(token, "https://evil.example", "endpoint [docs]")


@pytest.mark.parametrize("token", ["", "x", "é", "gAAAAAB"])
def test_a_damaged_token_is_a_clear_error(tmp_path: Path, token: str) -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_SECRET_KEY"):
        box(tmp_path).decrypt(token, "docs", "endpoint [docs]")


def test_the_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    file_key(home)
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [each.name for each in home.iterdir()] == [FILE]


def test_a_key_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    key = file_key(tmp_path)
    (tmp_path / FILE).chmod(0o644)
    assert file_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


_RACER = """
import sys
from pathlib import Path
from penstock.config.endpoints.secrets import file_key
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(file_key(folder).hex())
"""


def test_processes_that_race_for_the_first_key_get_the_same(tmp_path: Path) -> None:
    home = tmp_path / "home"
    argv = [sys.executable, "-c", _RACER, str(home)]
    racers = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
    assert len({racer.communicate(timeout=60)[0] for racer in racers}) == 1
    assert [each.name for each in home.iterdir()] == [FILE]


def test_a_file_system_without_hard_links_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert file_key(tmp_path) == file_key(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"A" * 60])
def test_a_damaged_key_file_is_never_replaced_in_silence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"secret.key is damaged"):
        file_key(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_home_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be used .* or set PENSTOCK_SECRET_KEY"):
        file_key(tmp_path / "file" / "home")


def test_encrypted_secrets_are_decrypted_when_they_are_read_and_never_show(tmp_path: Path) -> None:
    token = box(tmp_path).encrypt(VALUES, "docs")
    secrets = EncryptedSecrets(box(tmp_path), token, "docs", "endpoint [docs]")
    assert dict(secrets) == VALUES
    assert len(secrets) == 1
    assert "hush" not in repr(secrets)
    assert "hush" not in repr(box(tmp_path))
