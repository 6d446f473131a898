"""Where images come from and where they go."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.config.errors import ConfigurationError, InputInvalid
from penstock.tasks.images import store as image_store
from penstock.tasks.images.store import (
    Downloader,
    ImageFolder,
    NotKept,
    decoded,
    file_name,
    keep_all,
    may_fetch,
    picture,
    store,
)
from penstock.tasks.request.http import HttpClient
from penstock.workers.results.types import Failure, ImageResult

PNG = b"\x89PNG\r\n\x1a\n rest"
JPEG = b"\xff\xd8\xff rest"


class Storage(ThreadingHTTPServer):
    """A storage host: what to answer by path, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[tuple[int, str, bytes]]] = {}
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Storage

    def do_GET(self) -> None:
        self.server.asked.append({name.lower(): value for name, value in self.headers.items()})
        answers = self.server.answers[self.path]
        status, kind, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if status == 302:
            self.send_header("location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(image_store, "backoff", lambda attempt: 0.0)
    with Storage() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextlib.asynccontextmanager
async def downloading(own: str, **options: Any) -> AsyncIterator[Downloader]:
    http = HttpClient(5)
    try:
        yield Downloader(http, own, 5, **options)
    finally:
        await http.aclose()


NO_DOWNLOADS: Any = None


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://storage.example/a.png?sig=x", True),
        ("http://server.example:8080/a.png", True),
        ("http://server.example/a.png", False),
        ("http://storage.example/a.png", False),
        ("file:///etc/passwd", False),
        ("ftp://server.example:8080/a.png", False),
        ("https://", False),
        ("//storage.example/a.png", False),
        ("http://[", False),
    ],
)
def test_images_come_by_https_or_from_the_endpoints_own_server(url: str, allowed: bool) -> None:
    assert may_fetch(url, "http://server.example:8080/v1/images/generations") is allowed


async def test_an_image_is_fetched_without_any_key(storage: Storage) -> None:
    storage.answers["/a"] = [(200, "image/png", PNG)]
    async with downloading(storage.url) as downloader:
        assert await downloader.fetch(f"{storage.url}/a") == image_store.Picture(PNG, ".png")
    assert not {"authorization", "api-key"} & set(storage.asked[0])


@pytest.mark.parametrize(
    ("answers", "code", "asked"),
    [
        ([(404, "text/plain", b"gone")], "download_failed", 1),
        ([(302, "text/plain", b"")], "download_failed", 1),
        ([(500, "text/plain", b"")], "download_failed", 4),
        ([(503, "text/plain", b""), (200, "image/jpeg", JPEG)], "", 2),
        ([(200, "text/html", b"<html>")], "not_an_image", 1),
        ([(200, "image/png", b"x" * 2000)], "image_too_large", 1),
    ],
)
async def test_a_download_ends_with_an_image_or_a_reason(
    storage: Storage, answers: list[tuple[int, str, bytes]], code: str, asked: int
) -> None:
    storage.answers["/a"] = list(answers)
    found = ""
    try:
        async with downloading(storage.url, most=1000) as downloader:
            await downloader.fetch(f"{storage.url}/a")
    except NotKept as exc:
        found = exc.code
    assert found == code
    assert len(storage.asked) == asked


@pytest.mark.parametrize(
    ("data", "kind", "extension"),
    [
        (PNG, "application/octet-stream", ".png"),
        (JPEG, "image/png", ".jpg"),
        (b"GIF89a", "", ".gif"),
        (b"RIFF0000WEBP", "", ".webp"),
        (b"unknown", "image/webp", ".webp"),
    ],
)
def test_the_extension_is_that_of_the_content(data: bytes, kind: str, extension: str) -> None:
    assert picture(data, kind).extension == extension


def test_what_is_no_image_is_refused() -> None:
    for text in ("not base64!", base64.b64encode(b"no image").decode()):
        with pytest.raises(NotKept):
            decoded(text)


def test_names_hold_no_path() -> None:
    assert file_name("../../etc/passwd", 0, ".png") == "etc-passwd-0.png"
    assert file_name("///", 3, ".jpg") == "image-3.jpg"


def test_files_appear_whole_and_nothing_else_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b"
    saved = ImageFolder(folder).save("x.png", PNG)
    assert Path(saved).read_bytes() == PNG
    monkeypatch.setattr(
        "penstock.tasks.images.store.os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(OSError, match="full"):
        ImageFolder(folder).save("y.png", PNG)
    assert [path.name for path in folder.iterdir()] == ["x.png"]


async def test_an_object_store_by_url(tmp_path: Path) -> None:
    text = base64.b64encode(PNG).decode()
    result = await keep_all(ImageResult(b64=(text,)), store("memory://bucket/images"), "task-1", NO_DOWNLOADS)
    assert result.files == ("memory:///bucket/images/task-1-0.png",)
    assert result.b64 == ()
    import fsspec

    assert fsspec.filesystem("memory").cat_file("/bucket/images/task-1-0.png") == PNG


def test_a_store_that_is_not_installed_names_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"pip install|Protocol not known"):
        store("nonsense://bucket")


def test_a_workers_folder_is_absolute(tmp_path: Path) -> None:
    assert isinstance(store(str(tmp_path), relative=False), ImageFolder)
    assert isinstance(store(f"file://{tmp_path}", relative=False), ImageFolder)
    with pytest.raises(InputInvalid, match="absolute"):
        store("images", relative=False)


async def test_what_cannot_be_kept_is_a_failure_of_its_own_place(tmp_path: Path) -> None:
    good, bad = base64.b64encode(PNG).decode(), base64.b64encode(b"no image").decode()
    before = ImageResult(b64=(good, bad), operation_id="op", failures=(Failure(0, "content_filter", "no", 1),))
    result = await keep_all(before, ImageFolder(tmp_path), "task-1", NO_DOWNLOADS)
    assert [Path(file).name for file in result.files] == ["op-1.png"]
    assert [(failure.index, failure.code) for failure in result.failures] == [
        (0, "content_filter"),
        (2, "not_an_image"),
    ]
    assert result.b64 == before.b64, "what is not in a file stays in the result"
