"""The registry on a real server: secrets encrypted, versions, quotas, the file merged in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from penstock.config.endpoints import services
from penstock.config.endpoints.registry import Registry
from penstock.config.errors import BrokerUnavailable, ConfigurationError, EndpointInvalid, EndpointNotFound
from penstock.config.redis import connect, text
from penstock.config.settings import Settings
from support.fake_service import SECRET, body, fake_service

__all__ = ["fake_service"]


@pytest.fixture(autouse=True)
def with_fake_service(fake_service: Any) -> None:
    """The service ``fake`` beside the real ones."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of the test's own."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def client(valkey: Any) -> Iterator[redis.Redis]:
    """A client of an empty real server."""
    with connect(valkey.url) as client:
        yield client


@pytest.fixture
def registry(client: redis.Redis, settings: Settings) -> Registry:
    """A registry on an empty real server."""
    return Registry(client, settings)


@pytest.fixture
def make_body() -> Any:
    """``body(**changes)``: a valid body of the fake service."""
    return body


def test_what_was_put_is_there_for_another_process(client: redis.Redis, settings: Settings, make_body: Any) -> None:
    put = Registry(client, settings).put(
        "text_embedding",
        "docs",
        make_body(
            service_settings={"rate_limit": {"tokens_per_minute": 1000}, "max_inputs_per_request": 8, "timeout_s": 9},
            task_settings={"user": "me"},
            chunking_settings={"strategy": "none"},
        ),
    )
    got = Registry(client, settings).get("docs")
    assert got == put
    assert dict(got.secrets) == {"api_key": SECRET}
    assert got.caps.inputs == 8
    assert got.timeout_s == 9
    assert got.rate_limit.tokens_per_minute == 1000
    assert got.chunking_settings == {"strategy": "none"}


def test_no_secret_stands_in_redis_or_is_ever_shown(registry: Registry, client: redis.Redis, make_body: Any) -> None:
    body = make_body(task_settings={"headers": {"X-Gateway-Key": "gateway-SENTINEL", "X-Team": "search"}, "user": "me"})
    endpoint = registry.put("text_embedding", "docs", body)
    stored = [client.dump(key) for key in client.keys("*")] + [client.hgetall("penstock:endpoints")]
    for each in (
        *stored,
        endpoint,
        registry.get("docs"),
        registry.list(),
        registry.shown(endpoint),
        registry.find("docs"),
    ):
        assert "SENTINEL" not in repr(each)
    assert registry.get("docs").task_settings["headers"]["X-Gateway-Key"] == "gateway-SENTINEL"
    shown = {"headers": {"X-Gateway-Key": "***", "X-Team": "search"}, "user": "me"}
    assert registry.shown(registry.get("docs"))["task_settings"] == shown
    assert registry.shown(registry.find("docs"))["task_settings"] == shown


def test_get_shows_elasticsearchs_shape(registry: Registry, make_body: Any) -> None:
    shown = registry.shown(registry.put("text_embedding", "docs", make_body()))
    assert shown == {
        "inference_id": "docs",
        "task_type": "text_embedding",
        "service": "fake",
        "service_settings": {"model": "m", "similarity": "cosine", "rate_limit": {"requests_per_minute": 3000}},
        "task_settings": {},
        "chunking_settings": {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1},
    }
    json.dumps(shown)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rate_limit": {"requests_per_minute": None}},
        {"rate_limit": {"requests_per_minute": 0.5, "tokens_per_minute": 7}},
        {"max_inputs_per_request": 3, "timeout_s": 1.5, "dimensions": 12},
    ],
)
def test_what_get_shows_can_be_put_again_with_the_key(registry: Registry, make_body: Any, changes: Any) -> None:
    shown = registry.shown(registry.put("text_embedding", "docs", make_body(service_settings=changes)))
    again = {**shown, "service_settings": {**shown["service_settings"], "api_key": SECRET}}
    assert registry.shown(registry.put("text_embedding", "docs", again)) == shown


def test_a_put_over_an_id_replaces_it_and_its_version_grows(registry: Registry, make_body: Any) -> None:
    first = registry.put("completion", "chat", make_body())
    second = registry.put("completion", "chat", make_body(service_settings={"model": "other"}))
    assert second.version > first.version
    assert registry.get("chat").service_settings["model"] == "other"


def test_another_task_type_under_the_same_id_is_refused(registry: Registry, make_body: Any) -> None:
    registry.put("completion", "chat", make_body())
    with pytest.raises(
        EndpointInvalid, match=r"Inference endpoint \[chat\] already exists with task type \[completion\]"
    ):
        registry.put("text_embedding", "chat", make_body())
    registry.delete("chat")
    registry.put("text_embedding", "chat", make_body())


def test_a_bad_body_stores_nothing(registry: Registry) -> None:
    before = registry.version()
    with pytest.raises(EndpointInvalid):
        registry.put("completion", "chat", {"service": "fake"})
    assert registry.list() == []
    assert registry.version() == before


def test_an_unknown_id_names_what_is_near_and_the_command(registry: Registry, make_body: Any) -> None:
    registry.put("completion", "chat", make_body())
    for missing in (lambda: registry.get("chatt"), lambda: registry.delete("chatt"), lambda: registry.find("chatt")):
        with pytest.raises(EndpointNotFound, match=r"\[chatt\]: did you mean chat\? `penstock endpoint list`"):
            missing()
    with pytest.raises(EndpointNotFound):
        registry.get(5)  # type: ignore[arg-type]


def test_a_deleted_endpoint_is_gone_with_its_secrets(registry: Registry, client: redis.Redis, make_body: Any) -> None:
    registry.put("completion", "chat", make_body())
    registry.get("chat")
    registry.delete("chat")
    with pytest.raises(EndpointNotFound):
        registry.get("chat")
    assert client.hlen("penstock:endpoints") == 0


def test_the_version_changes_with_every_change_and_only_then(registry: Registry, make_body: Any) -> None:
    seen = [registry.version()]
    registry.put("completion", "a", make_body())
    seen.append(registry.version())
    registry.put("completion", "a", make_body())
    seen.append(registry.version())
    registry.delete("a")
    seen.append(registry.version())
    assert len(set(seen)) == 4
    assert registry.version() == seen[-1]


def test_a_change_by_another_process_is_seen_at_once(client: redis.Redis, settings: Settings, make_body: Any) -> None:
    mine, theirs = Registry(client, settings), Registry(client, settings)
    theirs.put("completion", "chat", make_body())
    assert mine.get("chat") is mine.get("chat")
    theirs.put("completion", "chat", make_body(service_settings={"model": "other"}))
    assert mine.get("chat").service_settings["model"] == "other"


def test_one_account_and_model_is_one_quota_whatever_the_ids(
    client: redis.Redis, settings: Settings, make_body: Any
) -> None:
    registry = Registry(client, settings)
    a = registry.put("text_embedding", "a", make_body())
    b = registry.put("text_embedding", "b", make_body(service_settings={"rate_limit": {"requests_per_minute": 1}}))
    other_model = registry.put("text_embedding", "c", make_body(service_settings={"model": "other"}))
    other_key = registry.put("text_embedding", "d", make_body(service_settings={"api_key": "another"}))
    assert a.quota == b.quota
    assert len({a.quota, other_model.quota, other_key.quota}) == 3
    assert a.quota.startswith("fake-")
    assert Registry(client, settings).put("text_embedding", "a", make_body()).quota == a.quota
    assert registry.prepare("text_embedding", "new", make_body()).quota == a.quota


def test_a_key_encrypted_elsewhere_is_a_clear_error_though_the_list_still_works(
    client: redis.Redis, tmp_path: Path, make_body: Any
) -> None:
    Registry(client, Settings(home=tmp_path / "a")).put("completion", "chat", make_body())
    elsewhere = Registry(client, Settings(home=tmp_path / "b"))
    assert [each.inference_id for each in elsewhere.list()] == ["chat"]
    with pytest.raises(ConfigurationError, match="PENSTOCK_SECRET_KEY"):
        elsewhere.get("chat")
    shared = Settings(home=tmp_path / "c", secret_key="the same on both hosts")
    Registry(client, shared).put("completion", "chat", make_body())
    there = Settings(home=tmp_path / "d", secret_key="the same on both hosts")
    assert dict(Registry(client, there).get("chat").secrets) == {"api_key": SECRET}


def test_a_key_is_not_sent_to_an_address_that_was_changed_in_redis(
    client: redis.Redis, registry: Registry, make_body: Any
) -> None:
    registry.put("completion", "chat", make_body(service_settings={"url": "https://good.example"}))
    record = json.loads(client.hget("penstock:endpoints", "chat") or b"")
    record["service_settings"]["url"] = "https://evil.example"
    client.hset("penstock:endpoints", "chat", json.dumps(record))
    with pytest.raises(ConfigurationError, match="changed in the broker"):
        registry.get("chat")


@pytest.mark.parametrize("record", ["", "[]", "{}", '"x"', '{"service": "fake"}', "5", b"\xff"])
def test_a_damaged_record_is_a_clear_error_and_can_be_put_again(
    client: redis.Redis, registry: Registry, make_body: Any, record: str | bytes
) -> None:
    client.hset("penstock:endpoints", "chat", record)
    registry.put("completion", "sound", make_body())
    with pytest.raises(ConfigurationError, match=r"endpoint \[chat\]"):
        registry.get("chat")
    listing = registry.read()
    assert [each.inference_id for each in listing.endpoints] == ["sound"], "it harms itself only"
    assert "endpoint [chat]" in str(listing.unreadable["chat"])
    registry.put("completion", "chat", make_body())
    assert registry.get("chat").service == "fake"
    assert registry.read().unreadable == {}


def test_a_service_of_a_later_version_is_a_clear_error(
    registry: Registry, make_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.put("completion", "chat", make_body())
    monkeypatch.delitem(services.SERVICES, "fake")
    with pytest.raises(ConfigurationError, match=r"service \[fake\].*upgrade"):
        registry.get("chat")
    assert list(registry.read().unreadable) == ["chat"]


def test_a_client_that_decodes_serves_as_well(valkey: Any, settings: Settings, make_body: Any) -> None:
    with connect(valkey.url, decode=True) as client:
        registry = Registry(client, settings)
        registry.put("completion", "chat", make_body())
        assert registry.get("chat").service == "fake"
        assert len(registry.list()) == 1


def test_prefixes_keep_two_penstocks_apart(client: redis.Redis, tmp_path: Path, make_body: Any) -> None:
    one = Registry(client, Settings(home=tmp_path, key_prefix="one:"))
    two = Registry(client, Settings(home=tmp_path, key_prefix="two:"))
    one.put("completion", "chat", make_body())
    assert two.list() == []
    assert {text(key).partition(":")[0] for key in client.keys("*")} == {"one"}


def test_a_server_that_is_gone_is_named(tmp_path: Path, make_body: Any) -> None:
    url = "redis://127.0.0.1:1/0"
    with connect(url, timeout_s=1) as client:
        registry = Registry(client, Settings(home=tmp_path))
        for call in (
            lambda: registry.put("completion", "chat", make_body()),
            lambda: registry.get("chat"),
            registry.list,
        ):
            with pytest.raises(BrokerUnavailable, match=r"127.0.0.1:1/0 cannot be reached"):
                call()


class TestWithAFile:
    @pytest.fixture
    def registry(self, client: redis.Redis, tmp_path: Path) -> Registry:
        path = tmp_path / "endpoints.yaml"
        path.write_text(
            "endpoints:\n  filed:\n    task_type: completion\n    service: fake\n"
            "    service_settings: {model: m, api_key: k}\n"
        )
        return Registry(client, Settings(home=tmp_path, endpoints_file=path))

    def test_its_endpoints_are_merged(self, registry: Registry, make_body: Any) -> None:
        put = registry.put("completion", "chat", make_body(service_settings={"api_key": "k"}))
        assert [each.inference_id for each in registry.list()] == ["chat", "filed"]
        assert registry.get("filed").secrets == {"api_key": "k"}
        assert registry.get("filed").quota == put.quota

    def test_they_cannot_be_put_or_deleted(self, registry: Registry, make_body: Any) -> None:
        for call in (
            lambda: registry.put("completion", "filed", make_body()),
            lambda: registry.prepare("completion", "filed", make_body()),
            lambda: registry.delete("filed"),
        ):
            with pytest.raises(
                ConfigurationError, match=r"\[filed\] comes from .* read-only \(PENSTOCK_ENDPOINTS_FILE\)"
            ):
                call()

    def test_the_version_knows_the_file(self, registry: Registry, tmp_path: Path) -> None:
        before = registry.version()
        path = tmp_path / "endpoints.yaml"
        path.write_text(path.read_text().replace("model: m", "model: other"))
        assert registry.version() != before
        assert registry.get("filed").service_settings["model"] == "other"

    def test_it_hides_an_endpoint_of_the_same_id_in_redis(
        self, registry: Registry, client: redis.Redis, tmp_path: Path, make_body: Any
    ) -> None:
        Registry(client, Settings(home=tmp_path)).put("completion", "filed", make_body())
        assert registry.get("filed").secrets == {"api_key": "k"}
        assert len(registry.list()) == 1
