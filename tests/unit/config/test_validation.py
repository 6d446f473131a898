"""An endpoint's body: every rule, every message, all of them together, never a secret."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from penstock.config.endpoints.endpoint import Endpoint
from penstock.config.endpoints.services import SERVICES, TaskType
from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.errors import ConfigurationError, EndpointInvalid
from penstock.config.settings import Settings

SECRET = "sk-0123456789abcdefSENTINEL"
UNKNOWN = "Model configuration contains settings [{%s}] unknown to the [fake] service"


def faults_of(settings: Settings, body: Any, task_type: Any = "text_embedding", inference_id: Any = "x") -> list[str]:
    with pytest.raises(EndpointInvalid) as caught:
        validate_endpoint(task_type, inference_id, body, settings)
    return list(caught.value.faults)


def test_a_valid_body_becomes_an_endpoint_with_its_defaults(settings: Settings, make_body: Any) -> None:
    endpoint = validate_endpoint("text_embedding", "docs", make_body(), settings)
    assert endpoint.task_type is TaskType.TEXT_EMBEDDING
    assert endpoint.service_settings == {"model": "m", "similarity": "cosine"}
    assert endpoint.secrets == {"api_key": SECRET}
    assert endpoint.rate_limit.requests_per_minute == 3000
    assert endpoint.rate_limit.tokens_per_minute is None
    assert endpoint.caps.inputs == 96
    assert endpoint.timeout_s == 60.0
    assert endpoint.chunking_settings == {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}
    assert SECRET not in repr(endpoint)


def test_a_completion_has_no_chunking(settings: Settings, make_body: Any) -> None:
    assert validate_endpoint("completion", "chat", make_body(), settings).chunking_settings is None
    assert faults_of(settings, make_body(chunking_settings={"strategy": "none"}), "completion") == [
        UNKNOWN % "chunking_settings={strategy=none}"
    ]


@pytest.mark.parametrize(
    ("limits", "requests", "tokens"),
    [
        ({}, 3000, None),
        ({"requests_per_minute": 60}, 60, None),
        ({"requests_per_minute": 0.5, "tokens_per_minute": 1000}, 0.5, 1000),
        ({"requests_per_minute": None}, None, None),
        ({"tokens_per_minute": None}, 3000, None),
    ],
)
def test_the_rate_limit_keeps_the_default_unless_told(
    settings: Settings, make_body: Any, limits: Any, requests: float, tokens: float
) -> None:
    endpoint = validate_endpoint("text_embedding", "x", make_body(service_settings={"rate_limit": limits}), settings)
    assert endpoint.rate_limit.requests_per_minute == requests
    assert endpoint.rate_limit.tokens_per_minute == tokens


def test_inputs_are_lowered_never_raised(settings: Settings, make_body: Any) -> None:
    for asked, inputs in ((1, 1), (96, 96), (500, 96)):
        body = make_body(service_settings={"max_inputs_per_request": asked, "timeout_s": 2.5})
        endpoint = validate_endpoint("text_embedding", "x", body, settings)
        assert endpoint.caps.inputs == inputs
        assert endpoint.caps.request_tokens == 10_000
        assert endpoint.timeout_s == 2.5


@pytest.mark.parametrize("inference_id", ["a", "0", "docs-embeddings", "a_b-c", "a.b", "x" * 200])
def test_good_ids(settings: Settings, make_body: Any, inference_id: str) -> None:
    assert validate_endpoint("completion", inference_id, make_body(), settings).inference_id == inference_id


@pytest.mark.parametrize("inference_id", ["", "A", "-a", "a-", "_a", "a b", "ä", "a/b", "a\n", None, 5, ["a"]])
def test_bad_ids(settings: Settings, make_body: Any, inference_id: Any) -> None:
    (fault,) = faults_of(settings, make_body(), inference_id=inference_id)
    assert fault.startswith("Invalid inference_id; '")
    assert fault.endswith(
        "' can contain lowercase alphanumeric (a-z and 0-9), hyphens or underscores; "
        "must start and end with alphanumeric"
    )


def test_an_id_has_a_length(settings: Settings, make_body: Any) -> None:
    assert faults_of(settings, make_body(), inference_id="x" * 201) == [
        "Invalid inference_id; it has 201 characters, 200 are allowed"
    ]


@pytest.mark.parametrize(
    ("task_type", "start"),
    [
        (None, "Task type must not be null"),
        ("", "Task type must not be null"),
        ("embeddings", "Unknown task_type [embeddings]"),
        (["x"], "Unknown task_type [[x]]"),
        ("chat_completion", "The [fake] service does not support task type [chat_completion]"),
    ],
)
def test_task_types(settings: Settings, make_body: Any, task_type: Any, start: str) -> None:
    (fault,) = faults_of(settings, make_body(), task_type=task_type)
    assert fault.startswith(start)


@pytest.mark.parametrize(
    ("body", "start"),
    [
        (None, "Model configuration must be an object with a service and service_settings, got nothing"),
        ([], "Model configuration must be an object with a service and service_settings, got a list"),
        ("x", "Model configuration must be an object"),
        ({}, "Model configuration is missing a service"),
        ({"service": None}, "Model configuration is missing a service"),
        (
            {"service": 5},
            "field [service] is not of the expected type. The value [5] cannot be converted to a [String]",
        ),
        ({"service": "opanai"}, "Unknown service [opanai]; did you mean [openai]?"),
        ({"service": "zzz"}, "Unknown service [zzz]; it must be one of [openai, azureopenai,"),
        ({"service": "fake"}, "Missing required field [service_settings]"),
        (
            {"service": "fake", "service_settings": "x"},
            "field [service_settings] is not of the expected type. The value [x] cannot be converted to a [Map]",
        ),
    ],
)
def test_the_frame_of_a_body(settings: Settings, body: Any, start: str) -> None:
    (fault,) = faults_of(settings, body)
    assert fault.startswith(start)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model": None}, "[service_settings] does not contain the required setting [model]"),
        ({"model": ""}, "[service_settings] Invalid value empty string. [model] must be a non-empty string"),
        ({"model": " "}, "[service_settings] Invalid value empty string. [model] must be a non-empty string"),
        ({"model": 5}, "field [model] is not of the expected type. The value [5] cannot be converted to a [String]"),
        (
            {"model": True},
            "field [model] is not of the expected type. The value [true] cannot be converted to a [String]",
        ),
        (
            {"model": datetime.date(2024, 2, 1)},
            "field [model] is not of the expected type. The value [2024-02-01] cannot be converted to a [String]: "
            "put it in quotes",
        ),
        (
            {"model": "a\nb"},
            "[service_settings] Invalid value for [model]: it holds a control character or half a surrogate pair",
        ),
        (
            {"model": "a\ud800"},
            "[service_settings] Invalid value for [model]: it holds a control character or half a surrogate pair",
        ),
        (
            {"api_key": None},
            "[service_settings] does not contain the required setting [api_key]; "
            "exactly one of [api_key] or [token_secret] must be set",
        ),
        (
            {"token_secret": "t" * 20},
            "[service_settings] must have exactly one of [api_key] or [token_secret] set, "
            "not both [api_key] and [token_secret]",
        ),
        (
            {"api_key": ["abc"]},
            "field [api_key] is not of the expected type. The value [***] cannot be converted to a [String]",
        ),
        (
            {"api_key": "abc\n"},
            "[service_settings] Invalid value for [api_key]: "
            "it begins or ends with white space (a newline from a file?)",
        ),
        (
            {"api_key": "schlüssel"},
            "[service_settings] Invalid value for [api_key]: it holds characters that are not ASCII, which no key has",
        ),
        (
            {"dimensions": 0},
            "[service_settings] Invalid value [0]. [dimensions] must be a positive integer",
        ),
        (
            {"dimensions": 5000},
            "[service_settings] Invalid value [5000.0]. [dimensions] must be less than or equal to [4096.0]",
        ),
        (
            {"dimensions": 3.5},
            "field [dimensions] is not of the expected type. The value [3.5] cannot be converted to a [Integer]",
        ),
        (
            {"dimensions": 10**400},
            "field [dimensions] is not of the expected type. The value [a number of more than 64 bits] "
            "cannot be converted to a [Integer]",
        ),
        (
            {"similarity": "l2"},
            "[service_settings] Invalid value [l2] received. [similarity] must be one of [cosine, dot_product]",
        ),
        (
            {"url": "ftp://h"},
            "[service_settings] Invalid url [ftp://h] received for field [url]: it must start with http:// or https://",
        ),
        (
            {"url": "http://u:p@h"},
            "[service_settings] Invalid url [http://...] received for field [url]: "
            "it must not carry a user or password; give the key in its own setting",
        ),
        (
            {"url": "http://[h"},
            "[service_settings] Invalid url [http://[h] received for field [url]: it cannot be parsed",
        ),
        (
            {"url": "https://"},
            "[service_settings] Invalid url [https://] received for field [url]: "
            "it must have a host and no white space",
        ),
        (
            {"scopes": "a"},
            "field [scopes] is not of the expected type. The value [a] cannot be converted to a [List]",
        ),
        (
            {"scopes": []},
            "[service_settings] Invalid value empty list. [scopes] must be a list of non-empty strings",
        ),
        ({"extra": [1]}, "field [extra] is not of the expected type. The value [[1]] cannot be converted to a [Map]"),
        ({"extra": {1: "a"}}, "[service_settings] Invalid value for [extra]: its keys must be strings"),
        (
            {"extra": {"a": math.nan}},
            "[service_settings] Invalid value for [extra]: it holds what JSON cannot: a date, "
            "a number that is not finite, half a surrogate pair",
        ),
        ({"fast": 1}, "field [fast] is not of the expected type. The value [1] cannot be converted to a [Boolean]"),
        ({"x": 1}, UNKNOWN % "x=1"),
        ({"x": 1, "y": "words", "z": None}, UNKNOWN % "x=1, y=words, z=null"),
        ({"api_keey": SECRET}, UNKNOWN % "api_keey=***"),
        ({"x": SECRET}, UNKNOWN % "x=***"),
        (
            {"rate_limit": 5},
            "field [rate_limit] is not of the expected type. The value [5] cannot be converted to a [Map]",
        ),
        (
            {"rate_limit": {"requests_per_minute": 0}},
            "[rate_limit] Invalid value [0]. [requests_per_minute] must be a positive number",
        ),
        (
            {"rate_limit": {"tokens_per_minute": "many"}},
            "field [tokens_per_minute] is not of the expected type. The value [many] cannot be converted to a [Double]",
        ),
        ({"rate_limit": {"rpm": 1}}, UNKNOWN % "rpm=1"),
        (
            {"max_inputs_per_request": 0},
            "[service_settings] Invalid value [0]. [max_inputs_per_request] must be a positive integer",
        ),
        ({"timeout_s": 0}, "[service_settings] Invalid value [0.0]. [timeout_s] must be a positive number"),
        (
            {"timeout_s": math.inf},
            "field [timeout_s] is not of the expected type. The value [inf] cannot be converted to a [Double]",
        ),
        ({"model": "forbidden"}, "[service_settings] the model is forbidden to ***"),
    ],
)
def test_service_settings(settings: Settings, make_body: Any, changes: dict[str, Any], fault: str) -> None:
    assert faults_of(settings, make_body(service_settings=changes)) == [fault]


@pytest.mark.parametrize(
    ("task_settings", "fault"),
    [
        ([], "field [task_settings] is not of the expected type. The value [[]] cannot be converted to a [Map]"),
        ({"user": 5}, "field [user] is not of the expected type. The value [5] cannot be converted to a [String]"),
        (
            {"temperature": 2.5},
            "[task_settings] Invalid value [2.5]. [temperature] must be less than or equal to [2.0]",
        ),
        (
            {"temperature": -1},
            "[task_settings] Invalid value [-1.0]. [temperature] must be greater than or equal to [0.0]",
        ),
        ({"top": 1}, UNKNOWN % "top=1"),
        (
            {"headers": {"a b": "c"}},
            "[task_settings] Invalid value for [headers]: a name of a header has letters, digits and hyphens only",
        ),
        (
            {"headers": {"a": "b\nc"}},
            "[task_settings] Invalid value for [headers]: "
            "a header's value must be a text without control characters, in Latin-1",
        ),
        (
            {"headers": {"X-Key": "***"}},
            "[task_settings] holds [***], which stands for a secret that is never shown: give the secret itself again",
        ),
    ],
)
def test_task_settings(settings: Settings, make_body: Any, task_settings: Any, fault: str) -> None:
    assert faults_of(settings, make_body(task_settings=task_settings)) == [fault]


def test_unknown_fields_of_the_body_are_named(settings: Settings, make_body: Any) -> None:
    assert faults_of(settings, make_body(foo={"a": [1, 2]})) == [UNKNOWN % "foo={a=[1, 2]}"]


def test_ids_and_task_types_in_a_body_agree_with_the_path(settings: Settings, make_body: Any) -> None:
    body = make_body(inference_id="docs", task_type="text_embedding")
    assert validate_endpoint("text_embedding", "docs", body, settings).inference_id == "docs"
    assert faults_of(settings, body, "completion", "other") == [
        "Cannot resolve conflicting inference_id parameter in the request URL [other] and the request body [docs]",
        "Cannot resolve conflicting task_type parameter in the request URL [completion] "
        "and the request body [text_embedding]",
    ]


def test_all_faults_of_a_body_are_told_together(settings: Settings, make_body: Any) -> None:
    body = make_body(
        service_settings={"model": None, "dimensions": -1, "rate_limit": {"x": 1}},
        task_settings={"temperature": 9},
        chunking_settings={"strategy": "word"},
        more=1,
    )
    with pytest.raises(EndpointInvalid) as caught:
        validate_endpoint("text_embedding", "BAD", body, settings)
    assert len(caught.value.faults) == 8
    assert str(caught.value).startswith("Validation Failed: 1: Invalid inference_id; 'BAD'")
    assert ";2: [service_settings] does not contain the required setting [model];3: " in str(caught.value)


def test_a_service_whose_package_is_missing_names_it(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setitem(SERVICES, "absent", "penstock_no_such_module")
    with pytest.raises(ConfigurationError, match="'penstock_no_such_module', which is not installed"):
        validate_endpoint("completion", "x", {"service": "absent"}, settings)


def test_headers_are_hidden_in_the_repr(settings: Settings, make_body: Any) -> None:
    body = make_body(task_settings={"headers": {"X-Gateway-Key": "hush", "X-Plain": "shown"}})
    endpoint = validate_endpoint("text_embedding", "x", body, settings)
    assert dict(endpoint.task_settings["headers"])["X-Gateway-Key"] == "hush"
    assert "hush" not in repr(endpoint)
    assert "shown" in repr(endpoint)


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_real_services_declaration_holds_together(name: str, settings: Settings) -> None:
    """An empty body names the required settings; nothing trips over what is missing."""
    from penstock.config.endpoints.validation import load_spec

    for task_type in load_spec(name).tasks:
        found = faults_of(settings, {"service": name, "service_settings": {}}, task_type)
        assert any("does not contain the required setting" in fault for fault in found)


PLAIN = "an everyday SENTINEL"  # a secret that does not look like one, known by where it stands
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.just(SECRET)
    | st.just(PLAIN)
    | st.dates()
    | st.just("http://h/v1")
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
_NAMES = st.sampled_from(
    [
        "model",
        "api_key",
        "token_secret",
        "url",
        "dimensions",
        "similarity",
        "scopes",
        "extra",
        "fast",
        "user",
        "headers",
        "temperature",
        "rate_limit",
        "max_inputs_per_request",
        "timeout_s",
        "strategy",
        "max_chunk_size",
        "separators",
    ]
)
_MAPS = st.dictionaries(_NAMES | st.text(max_size=6) | st.integers() | st.just(SECRET), _VALUES, max_size=8)
_KEYS = st.sampled_from([{"api_key": PLAIN}, {"token_secret": [PLAIN]}, {"api_key": {"x": PLAIN}}])
_BODIES = st.fixed_dictionaries(
    {
        "service": st.just("fake") | _VALUES,
        "service_settings": st.builds(lambda given, key: {**given, **key}, _MAPS, _KEYS),
    },
    optional={
        "task_settings": _MAPS | _VALUES,
        "chunking_settings": _MAPS | _VALUES,
        "inference_id": _VALUES,
        "more": _VALUES,
    },
)


def outcome(task_type: Any, inference_id: Any, body: Any, settings: Settings) -> Endpoint | str:
    try:
        return validate_endpoint(task_type, inference_id, body, settings)
    except EndpointInvalid as exc:
        return str(exc)


@with_settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(task_type=st.sampled_from(["text_embedding", "completion"]) | _VALUES, inference_id=_VALUES, body=_BODIES)
def test_no_body_gives_anything_but_faults_or_an_endpoint_and_no_fault_has_the_secret(
    settings: Settings, task_type: Any, inference_id: Any, body: Any
) -> None:
    answer = outcome(task_type, inference_id, body, settings)
    assert answer
    assert "SENTINEL" not in repr(answer)
    repr(answer).encode()  # can be printed


@given(task_type=_VALUES, inference_id=_VALUES, body=_VALUES)
def test_what_is_no_body_at_all_gives_faults_too(task_type: Any, inference_id: Any, body: Any) -> None:
    with pytest.raises(EndpointInvalid):
        validate_endpoint(task_type, inference_id, body, Settings())
