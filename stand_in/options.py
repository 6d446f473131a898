"""Everything that can be asked of the stand-in, in one frozen model: its command line, its control API and its help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from penstock.config.errors import ConfigurationError
from penstock.stand_in.answers.image_jobs import STATES
from penstock.stand_in.faults import normal_kind
from penstock.stand_in.headers import WAYS
from penstock.stand_in.limits import is_window
from penstock.stand_in.vectors import MAX_DIMENSIONS


def _pairs(value: Any) -> Any:
    """Read ``["500=0.03", "nan=0.01"]`` or ``"500=0.03,nan=0.01"`` as a mapping."""
    if isinstance(value, Mapping):
        return value
    items = value.split(",") if isinstance(value, str) else list(value)
    pairs = [str(item).rpartition("=") for item in items if str(item).strip()]
    if any(not equals or not name for name, equals, _ in pairs):
        raise ValueError("give NAME=VALUE")
    return {name.strip(): text.strip() for name, _, text in pairs}


def _words(value: Any) -> Any:
    """Read ``"a, b"`` as a list; the items of a list may be such strings too."""
    items = [value] if isinstance(value, str) else list(value)
    return tuple(part.strip() for item in items for part in str(item).split(",") if part.strip())


Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]
Rates = Annotated[dict[str, float], BeforeValidator(_pairs)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


def _option(default: Any, group: str, text: str, **rules: Any) -> Any:
    return Field(default, description=text, json_schema_extra={"group": group}, **rules)


class Options(BaseModel):
    """The stand-in's options; see each one's description. Names on the command line have dashes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The model
    dimensions: int = _option(256, "Model", "Dimensions where a request asks for none.", ge=1, le=MAX_DIMENSIONS)
    models: Words = _option((), "Model", "Models and deployments that exist, others are 404. Default: any name.")
    api_key: Words = _option((), "Model", "Keys that are let in, others are 401. Default: any, or none.")
    aws_key: Words = _option((), "Model", "ID:SECRET of AWS keys whose SigV4 signatures are verified. Default: any.")
    bytes_per_token: float = _option(4.0, "Model", "Token estimate: ceil(UTF-8 bytes / this), at least 1.", gt=0)
    usage: Literal["right", "absent", "zero", "nonsense"] = _option("right", "Model", "What answers say of usage.")
    ignore_base64: bool = _option(
        False, "Model", "Answer with floats whatever encoding_format asks, as old servers do."
    )
    name_input: bool = _option(False, "Model", "Errors of one input name it, as in 'input[3]'.")
    unsupported: Words = _option((), "Model", "Parameters of completions that the model does not take.")
    answer_tokens: int = _option(40, "Model", "Length of a completion's answer, in words.", ge=1)
    token_delay_ms: float = _option(0.0, "Model", "Delay before each word of a completion or stream.", ge=0)
    errors: Literal["openai", "detail", "text", "integer-code", "string"] = _option(
        "openai", "Model", "Shape of errors on the OpenAI paths: OpenAI's own, or those of compatible servers."
    )

    # Limits
    rpm: float | None = _option(None, "Limits", "Requests a minute. Default: no limit.", gt=0)
    tpm: float | None = _option(None, "Limits", "Tokens a minute. Default: no limit.", gt=0)
    window: str = _option(
        "bucket-1s", "Limits", "How limits are enforced: bucket-Ns, gcra (no burst), fixed-Ns, sliding-Ns, none."
    )
    burst: float | None = _option(None, "Limits", "Requests a bucket holds, in place of N seconds' worth.", ge=1)
    quota_by: Literal["all", "model", "key"] = _option("all", "Limits", "What has a quota of its own.")
    charge_failed: bool = _option(False, "Limits", "Requests answered 429 count against the limits too, as at OpenAI.")
    max_concurrent: int | None = _option(None, "Limits", "More requests than this at a time are 429.", ge=1)
    max_inputs: int = _option(2048, "Limits", "Inputs a request: 'The max number of inputs is N'.", ge=1)
    max_input_tokens: int = _option(8192, "Limits", "Tokens an input.", ge=1)
    context_tokens: int = _option(128_000, "Limits", "Tokens of a completion's prompt and answer together.", ge=1)
    max_request_tokens: int = _option(300_000, "Limits", "Tokens of all inputs of a request.", ge=1)

    # What answers say
    headers: Literal["auto", "openai", "azure", "azure-reset", "none", "nonsense"] = _option(
        "auto", "Headers", "Style of rate-limit headers; auto is each vendor's own."
    )
    retry_after: Words = _option(
        ("header", "message"), "Headers", f"How a 429 says when to come back, several by commas: {', '.join(WAYS)}."
    )
    should_retry: Literal["", "true", "false"] = _option("", "Headers", "Send x-should-retry with errors.")

    # Refusals
    refuse: str = _option(
        "", "Refusals", "Refuse: insufficient_quota (or another billing code), slow_down, 401, 403, 404; empty: serve."
    )
    refuse_from: int = _option(1, "Refusals", "First request (by number) that is refused.", ge=1)
    refuse_until: int | None = _option(None, "Refusals", "Last request that is refused. Default: for ever.", ge=1)
    cool_down_s: float = _option(
        0.0, "Refusals", "For so many seconds from now every request is 429 with the time left.", ge=0
    )

    # Faults
    fault: Rates = _option({}, "Faults", "KIND=RATE, repeatable: a status, or a kind listed below.")
    fault_by: Literal["request", "text"] = _option("request", "Faults", "Draw for each request, or for each text.")
    poison: Pairs = _option(
        {}, "Faults", "MARK=KIND, repeatable: a request with a text that contains MARK always has this fault."
    )
    seed: int = _option(0, "Faults", "Seed of faults and jitter.", ge=0)
    stall_s: float = _option(30.0, "Faults", "Length of a stall.", ge=0)
    slow_s: float = _option(2.0, "Faults", "How late a slow answer is.", ge=0)
    latency_ms: float = _option(0.0, "Faults", "Time that every answer takes.", ge=0)
    jitter_ms: float = _option(0.0, "Faults", "Up to so much is added to it, evenly.", ge=0)

    # Azure
    content_filter: Literal["innererror", "inner_error", "bare"] = _option(
        "innererror", "Azure", "How Azure OpenAI's 400 tells of the content filter: in two spellings, or not."
    )
    client_secret: Words = _option((), "Azure", "Client secrets the token endpoint takes. Default: any.")
    token_lifetime_s: float = _option(3599.0, "Azure", "How long its access tokens are let in.", gt=0)
    image_states: Words = _option(
        ("notRunning", "running", "succeeded"), "Azure", "What each poll of an image operation finds; the last stays."
    )
    image_retry_after_s: float = _option(1.0, "Azure", "The pace asked for polls, in whole seconds; 0 says none.", ge=0)
    image_poll_errors: int = _option(0, "Azure", "So many first polls of each operation are answered 500.", ge=0)
    image_failed_status: Literal["200", "400"] = _option("200", "Azure", "Status of the poll that finds a failure.")
    image_item_errors: int = _option(0, "Azure", "So many images of each operation fail on their own.", ge=0)
    image_location: Literal["own", "relative", "missing", "foreign"] = _option(
        "own", "Azure", "Where operation-location points; foreign is another server's address."
    )
    image_operations: int | None = _option(None, "Azure", "More unfinished operations than this are 429.", ge=1)

    info_type: str = _option("embeddings", "Azure", "model_type in Azure AI's /info.")

    # Statistics
    track_texts: int = _option(2_000_000, "Statistics", "Texts whose count of billings is kept.", ge=0)

    @field_validator("window")
    @classmethod
    def _known_window(cls, name: str) -> str:
        if not is_window(name):
            raise ValueError("give bucket-1s, bucket-minute, gcra, fixed-1s, fixed-10s, sliding-10s, sliding-60s ...")
        return name

    @field_validator("retry_after")
    @classmethod
    def _known_ways(cls, ways: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [way for way in ways if way not in WAYS]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(WAYS)}")
        return ways

    @field_validator("image_states")
    @classmethod
    def _known_states(cls, states: tuple[str, ...]) -> tuple[str, ...]:
        if not states or any(state not in STATES for state in states):
            raise ValueError(f"give some of {', '.join(STATES)}")
        return states

    @field_validator("refuse")
    @classmethod
    def _known_refusal(cls, name: str) -> str:
        known = (*BILLING_CODES, "slow_down", "401", "403", "404")
        if name and name not in known:
            raise ValueError(f"give one of {', '.join(known)}, or nothing")
        return name

    @field_validator("fault")
    @classmethod
    def _known_faults(cls, rates: dict[str, float]) -> dict[str, float]:
        rates = {normal_kind(kind): rate for kind, rate in rates.items()}
        if any(not 0 <= rate <= 1 for rate in rates.values()) or sum(rates.values()) > 1 + 1e-9:
            raise ValueError("rates are from 0 to 1, and so is their sum")
        return rates

    @field_validator("poison")
    @classmethod
    def _known_poison(cls, poison: dict[str, str]) -> dict[str, str]:
        return {mark: normal_kind(kind) for mark, kind in poison.items()}

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """Return options with ``changes``, whose names may have dashes or underscores.

        Raises:
            ConfigurationError: names each option that is wrong and what would be right.
        """
        return options({**self.model_dump(), **{name.replace("-", "_"): value for name, value in changes.items()}})


# Codes of a 429 that waits for a human (OpenAI's help pages on error codes).
BILLING_CODES = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
)


def options(values: Mapping[str, Any]) -> Options:
    """Make options from names with underscores.

    Raises:
        ConfigurationError: names each option that is wrong and what would be right.
    """
    try:
        return Options(**values)
    except ValidationError as exc:
        faults = [
            _explained(error["loc"], error["msg"]) for error in exc.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("; ".join(faults)) from exc


def _explained(place: tuple[int | str, ...], message: str) -> str:
    name = "--" + str(place[0]).replace("_", "-")
    if message == "Extra inputs are not permitted":
        return f"there is no option {name}: `penstock stand-in --help` lists them"
    return f"{name}: {message.removeprefix('Value error, ')}"
