"""The endpoints' secrets: encrypted and authenticated at rest (Fernet), decrypted only to build a request.

The key comes from ``PENSTOCK_SECRET_KEY``, or from the file ``secret.key`` under ``PENSTOCK_HOME`` (mode 0600, made on
first use). The variable takes any string of 16 characters or more, a Fernet key among others: it is stretched with
scrypt, since people type what they can remember. The salt is fixed, for all hosts of a deployment must come to the same
key from the same string and share nothing else.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from penstock.config.errors import ConfigurationError
from penstock.config.settings import Settings

FILE = "secret.key"
_SALT = b"penstock.secrets.v1"
_KEY_BYTES = 32


class SecretBox:
    """Encrypts and decrypts secrets with this host's key, which is read when it is first needed.

    Args:
        settings: for ``secret_key`` and ``home``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __repr__(self) -> str:
        return f"SecretBox({self._source})"

    def encrypt(self, values: Mapping[str, Any], bound_to: str) -> str:
        """Return a token that holds ``values``.

        Args:
            values: what JSON can hold.
            bound_to: a text without which the token cannot be decrypted, so that nobody who can write to the broker
                sends a key to another address.
        """
        payload = json.dumps({"values": dict(values), "bound_to": _digest(bound_to)})
        return self._fernet.encrypt(payload.encode()).decode("ascii")

    def decrypt(self, token: str, bound_to: str, what: str) -> dict[str, Any]:
        """Return what a token holds.

        Args:
            token: from ``encrypt``.
            bound_to: the text that it was encrypted with.
            what: names the thing in errors, such as ``endpoint [docs]``.

        Raises:
            ConfigurationError: the token was encrypted with another key, or ``bound_to`` has changed since.
        """
        try:
            payload = json.loads(self._fernet.decrypt(token.encode()))
        except (InvalidToken, ValueError):
            raise ConfigurationError(
                f"the secrets of {what} were encrypted with another key than {self._source}: set PENSTOCK_SECRET_KEY "
                "to the one that they were encrypted with (the same on every host), or put the endpoint again"
            ) from None
        if payload["bound_to"] != _digest(bound_to):
            raise ConfigurationError(
                f"{what} was changed in the broker by something other than Penstock: put the endpoint again"
            )
        values: dict[str, Any] = payload["values"]
        return values

    @property
    def _source(self) -> str:
        if self._settings.secret_key is not None:
            return "PENSTOCK_SECRET_KEY"
        return f"the file {self._settings.home / FILE}"

    @cached_property
    def _fernet(self) -> Fernet:
        given = self._settings.secret_key
        key = _stretch(given.get_secret_value()) if given is not None else file_key(self._settings.home)
        return Fernet(base64.urlsafe_b64encode(key))


class EncryptedSecrets(Mapping[str, str]):
    """Secrets that are decrypted when they are first read: listing endpoints needs no key."""

    def __init__(self, box: SecretBox, token: str, bound_to: str, what: str) -> None:
        self._box, self._token, self._bound_to, self._what = box, token, bound_to, what

    def __repr__(self) -> str:
        return f"EncryptedSecrets({self._what})"

    def __getitem__(self, name: str) -> str:
        return self._decrypted[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decrypted)

    def __len__(self) -> int:
        return len(self._decrypted)

    @cached_property
    def _decrypted(self) -> dict[str, str]:
        return self._box.decrypt(self._token, self._bound_to, self._what)


@lru_cache(maxsize=8)
def _stretch(text: str) -> bytes:
    # 16 MB and some 50 ms, once a process.
    return hashlib.scrypt(text.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=_KEY_BYTES)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file_key(home: Path) -> bytes:
    """Return the key in ``home/secret.key``, which is made when there is none; safe against a race of processes.

    Raises:
        ConfigurationError: the file cannot be made or read, holds no key, or may be read by others.
    """
    path = home / FILE
    try:
        if not path.exists():
            _create(path)
        return _read(path)
    except OSError as exc:
        raise ConfigurationError(
            f"the secret key file {path} cannot be used ({exc.strerror}): make PENSTOCK_HOME a folder that Penstock "
            "may write to, or set PENSTOCK_SECRET_KEY"
        ) from exc


def _create(path: Path) -> None:
    """Write the key to a file of its own, whole, then give it its name: whoever comes second keeps the first's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _name(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if not path.exists():  # a file system without hard links: rename is whole too, though the last one wins
            draft.rename(path)


def _read(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    try:
        key = base64.urlsafe_b64decode(path.read_bytes().strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"the secret key file {path} is damaged: restore it from a backup, or remove it and put every endpoint "
            "with secrets again"
        )
    return key
