"""Settings: the ``PENSTOCK_`` variables, read from the environment when asked and never at import.

Every field's description carries its unit; ``penstock config`` and ``docs/configuration.md`` are made from the
same words. Nothing here opens a file or a connection.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.config.errors import ConfigurationError
from penstock.config.urls import BROKER_SCHEMES, REDIS_SCHEMES, scheme_of

PREFIX = "PENSTOCK_"
#: Default of ``request_timeout_s``, and the most that it and an endpoint's ``timeout_s`` may be.
REQUEST_TIMEOUT_S, LONGEST_REQUEST_S = 60.0, 86_400
#: Default of ``heartbeat_s``, also of a connection to the broker that is made without our settings.
HEARTBEAT_S = 4.0
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def default_home() -> Path:
    """Return the platform's folder for a user's application data, ``penstock`` in it.

    ``$XDG_DATA_HOME`` where it is set to an absolute path (the XDG base directory specification says to ignore
    relative ones), else ``~/.local/share`` (Linux), ``~/Library/Application Support`` (macOS), ``%LOCALAPPDATA%``.
    """
    xdg = os.environ.get("XDG_DATA_HOME", "")
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "penstock"
    try:
        user = Path.home()
    except RuntimeError as exc:
        raise ConfigurationError(
            "this user has no home folder: set PENSTOCK_HOME to a folder that Penstock may write to"
        ) from exc
    if sys.platform == "darwin":
        return user / "Library" / "Application Support" / "penstock"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or user / "AppData" / "Local") / "penstock"
    return user / ".local" / "share" / "penstock"


class Settings(BaseSettings):
    """All settings, frozen. Use ``load_settings`` to read them: its errors name the variable at fault."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    broker_url: SecretStr | None = Field(
        None,
        description="The broker: redis://, rediss://, redis+socket:///path?virtual_host=N, amqp:// or amqps://. "
        "Unset: an embedded broker runs under PENSTOCK_HOME.",
    )
    result_backend: SecretStr | None = Field(
        None,
        description="Where results are stored, a Redis URL. Unset: the broker's own server. Needed when the broker "
        "is RabbitMQ; then endpoints, lanes and jobs live here as well.",
    )
    home: Path = Field(
        default_factory=default_home,
        description="Folder for the embedded broker's data, the secret key file, job ledgers and logs.",
    )
    endpoints_file: Path | None = Field(
        None,
        description="A read-only TOML, JSON or YAML file of inference endpoints, with ${VARIABLE} for secrets.",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Key under which the endpoints' secrets are encrypted at rest: any string of 16 characters or "
        "more, the same on every host. Unset: a random one in the file secret.key under PENSTOCK_HOME.",
    )
    connect_timeout_s: float = Field(
        5.0, gt=0, le=600, description="Seconds to wait for a connection to a broker or a service."
    )
    request_timeout_s: float = Field(
        REQUEST_TIMEOUT_S,
        gt=0,
        le=LONGEST_REQUEST_S,
        description="Seconds that one request to a service may take; an endpoint's timeout_s overrides it.",
    )
    result_expires_s: int = Field(86_400, ge=1, description="Seconds after which a stored result is dropped.")
    concurrency: int = Field(100, ge=1, le=10_000, description="Tasks in flight per worker process, a count.")
    visibility_timeout_s: float = Field(
        20.0,
        ge=1,
        description="Seconds after its last heartbeat at which a dead worker's message is delivered to another one. "
        "The same on all workers of a broker.",
    )
    heartbeat_s: float = Field(
        HEARTBEAT_S, gt=0, description="Seconds between two heartbeats of a message in flight: its lease is renewed."
    )
    key_prefix: str = Field(
        "penstock:",
        pattern=r"^[A-Za-z0-9_.:{}/-]+$",
        description="Prefix of every key in Redis, Celery's queues and results included; two Penstocks that share a "
        "server differ in it. Only what another Celery app is sent and answered is under that app's own names.",
    )
    max_delay_s: float = Field(
        120.0, gt=0, description="Seconds: a lane that is asked to wait longer than this is parked instead."
    )
    retry_attempts: int = Field(8, ge=1, description="Requests made for one input before it fails, a count.")
    retry_budget_s: float = Field(
        600.0, gt=0, description="Seconds from the first attempt after which an input is not tried again."
    )
    log_level: LogLevel = Field("INFO", description="Level of the workers' logs.")

    @field_validator("home", "endpoints_file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        try:
            return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow the links
        except RuntimeError as exc:
            raise ValueError("'~' stands for no folder here: give an absolute path") from exc

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("broker_url")
    @classmethod
    def _broker_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        return _with_scheme(value, BROKER_SCHEMES)

    @field_validator("result_backend")
    @classmethod
    def _result_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        return _with_scheme(value, REDIS_SCHEMES)

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MINIMUM_KEY_LENGTH:
            raise ValueError(
                f"too short: give {MINIMUM_KEY_LENGTH} characters or more, for instance the output of "
                '`python -c "import secrets; print(secrets.token_urlsafe(32))"`'
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.visibility_timeout_s < 2 * self.heartbeat_s:
            raise ValueError(
                "PENSTOCK_VISIBILITY_TIMEOUT_S: must be at least twice PENSTOCK_HEARTBEAT_S "
                f"({self.heartbeat_s:g}), got {self.visibility_timeout_s:g}: one lost heartbeat would run a task twice"
            )
        if self.broker_url and not self.result_backend and scheme_of(self.broker_url.get_secret_value()) in AMQP:
            raise ValueError(
                "PENSTOCK_RESULT_BACKEND: must name a Redis (redis://host:6379/0) when PENSTOCK_BROKER_URL is "
                "RabbitMQ: results, endpoints and lanes are kept there"
            )
        return self


AMQP = frozenset(BROKER_SCHEMES) - frozenset(REDIS_SCHEMES)
MINIMUM_KEY_LENGTH = 16
SECRET_FIELDS = frozenset({"broker_url", "result_backend", "secret_key"})


def _with_scheme(value: SecretStr | None, schemes: tuple[str, ...]) -> SecretStr | None:
    if value is not None and scheme_of(value.get_secret_value()) not in schemes:
        raise ValueError("must start with " + ", ".join(f"{scheme}://" for scheme in schemes))
    return value


def variable(field: str) -> str:
    """Return the environment variable of a field of ``Settings``."""
    return PREFIX + field.upper()


def load_settings() -> Settings:
    """Read the environment and return the settings.

    Raises:
        ConfigurationError: one or more variables are wrong; the message names each, with what would be right.
    """
    settings, faults = read_settings()
    if faults:
        raise ConfigurationError("; ".join(faults.values()))
    return settings


def read_settings() -> tuple[Settings, dict[str, str]]:
    """Read the environment and return the settings, defaults in place of wrong values, and the faults by field."""
    faults: dict[str, str] = {}
    while True:
        try:
            return Settings(**{field: _default(field) for field in faults}), faults
        except ValidationError as exc:
            found = dict(_fault(error) for error in exc.errors(include_url=False))
            if found.keys() <= faults.keys():
                raise ConfigurationError("; ".join(found.values())) from None  # a default of ours would be wrong
            faults |= found


def _default(field: str) -> Any:
    return Settings.model_fields[field].get_default(call_default_factory=True, validated_data={})


def _fault(error: Any) -> tuple[str, str]:
    """Return the field at fault and the message, which starts with its variable."""
    text = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return text.partition(":")[0].removeprefix(PREFIX).lower(), text
    field = str(error["loc"][0])
    got = "" if field in SECRET_FIELDS else f", got {error['input']!r}"
    return field, f"{variable(field)}: {_REMEDIES.get(error['type'], _plain(text))}{got}"


def _plain(text: str) -> str:
    return text.replace("Input should be", "must be")


# Pydantic's words say what is wrong with a value; for these the reader also needs what would be right.
_REMEDIES = {
    "float_parsing": "must be a number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "may hold letters, digits and any of _ . : / - { } only, for instance penstock:",
    "literal_error": "must be DEBUG, INFO, WARNING, ERROR or CRITICAL",
}
