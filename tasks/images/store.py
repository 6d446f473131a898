"""Keeps images: fetched from where the service put them, without any key, or decoded; in a folder or object store."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import importlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from penstock.config.errors import ConfigurationError, InputInvalid
from penstock.tasks.request.http import HttpClient
from penstock.tasks.services.base import Refused, Request
from penstock.tasks.services.wire import urls
from penstock.workers.lanes.decision import backoff
from penstock.workers.lanes.outcome import Outcome, OutcomeKind
from penstock.workers.results.types import Failure, ImageResult

#: Bytes of an image at most. The largest PNG that any service draws is about half of it.
MOST_BYTES = 64 * 1024 * 1024
#: Requests for one image at most.
ATTEMPTS = 4

_EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
_MARKS = ((b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"))
_AGAIN = frozenset({OutcomeKind.NOT_SENT, OutcomeKind.NO_ANSWER, OutcomeKind.SERVER_ERROR, OutcomeKind.RATE_LIMITED})
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class NotKept(Exception):
    """An image could not be kept; ``code`` and ``message`` are a failure's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class Picture:
    """An image: its bytes, and the extension that goes with them."""

    data: bytes
    extension: str


def file_name(identity: str, index: int, extension: str) -> str:
    """Return an image's name: of the operation's id and the image's place in the answer."""
    return f"{_UNSAFE.sub('-', identity).strip('-')[:120] or 'image'}-{index}{extension}"


# Where they come from -----------------------------------------------------------------------------------------------


def may_fetch(url: str, own: str) -> bool:
    """Whether an image may be fetched: by https from anywhere, for services keep images on storage hosts; by http only
    from the endpoint's own server (``own``, any URL of it)."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.scheme == "https" or urls.origin(url) == urls.origin(own))
    return False


@dataclass(frozen=True)
class Downloader:
    """Fetches images from where a service put them.

    Args:
        http: sends the requests. No key is sent, and no redirect followed.
        own: a URL of the endpoint's own server, see ``may_fetch``.
        timeout_s: seconds for one request.
        most: bytes of an image at most.
    """

    http: HttpClient
    own: str
    timeout_s: float
    most: int = MOST_BYTES

    async def fetch(self, url: str) -> Picture:
        """Fetch an image, asking again where that may help. Raises NotKept, with the reason."""
        if not may_fetch(url, self.own):
            raise NotKept("foreign_image_url", "the image's URL is neither https nor of the endpoint's own server")
        attempt = 1
        while True:
            try:
                return await self._fetch_once(url)
            except Refused as refused:
                outcome = refused.outcome
                if outcome.kind not in _AGAIN or attempt >= ATTEMPTS:
                    words = outcome.message or f"HTTP {outcome.status}"
                    raise NotKept("download_failed", f"the image could not be fetched: {words}") from refused
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def _fetch_once(self, url: str) -> Picture:
        async with self.http.stream(Request("GET", url, {"Accept": "image/*"}), self.timeout_s) as streamed:
            if streamed.status != 200:
                raise Refused(_refused(streamed.status))
            data = bytearray()
            async for part in streamed.parts:
                data += part
                if len(data) > self.most:
                    raise NotKept("image_too_large", f"the image has more than {self.most:,} bytes")
        kind = streamed.headers.get("content-type", "").partition(";")[0].strip().lower()
        return picture(bytes(data), kind)


def _refused(status: int) -> Outcome:
    again = status in (408, 429) or status >= 500
    outcome_kind = OutcomeKind.SERVER_ERROR if again else OutcomeKind.REQUEST_REFUSED
    return Outcome(outcome_kind, "download_failed", f"HTTP {status} from where the image is kept", status)


def decoded(text: str, most: int = MOST_BYTES) -> Picture:
    """Return an image that came as base64. Raises NotKept."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise NotKept("not_base64", "the image is no base64") from exc
    if len(data) > most:
        raise NotKept("image_too_large", f"the image has more than {most:,} bytes")
    return picture(data)


def picture(data: bytes, kind: str = "") -> Picture:
    """Return an image with the extension of its own first bytes, else of its content type. Raises NotKept."""
    for mark, extension in _MARKS:
        if data.startswith(mark):
            return Picture(data, extension)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Picture(data, ".webp")
    if kind in _EXTENSIONS and data:
        return Picture(data, _EXTENSIONS[kind])
    raise NotKept("not_an_image", f"what came is no image ({kind or 'no content type'}, {len(data)} bytes)")


# Where they go ------------------------------------------------------------------------------------------------------


class ImageFolder:
    """A folder on this machine. Files appear whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, name: str, data: bytes) -> str:
        """Write a file; returns its path. Raises OSError."""
        self._path.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            target = self._path / name
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return str(target)


class ObjectStore:
    """A folder in any store that fsspec knows (``s3://``, ``gs://``, ``az://``, ``memory://`` ...)."""

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = importlib.import_module("fsspec.core").url_to_fs(url)
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                f"[out] {url.partition('://')[0]}:// needs the package {exc.name}: pip install 'penstock[fsspec]' and "
                "the store's own package, such as s3fs"
            ) from exc
        except (ValueError, ImportError) as exc:
            raise ConfigurationError(f"[out] {exc}") from exc

    def save(self, name: str, data: bytes) -> str:
        """Write an object; returns its URL. Raises OSError."""
        path = f"{self._root.rstrip('/')}/{name}"
        try:
            self._files.pipe_file(path, data)
        except Exception as exc:  # every store has errors of its own
            raise OSError(str(exc) or type(exc).__name__) from exc
        return str(self._files.unstrip_protocol(path))


def store(out: str | os.PathLike[str], *, relative: bool = True) -> ImageFolder | ObjectStore:
    """Return where images go.

    Args:
        out: a folder, or a URL with a scheme.
        relative: whether a folder may be relative to the working directory; a worker's is nobody's business.

    Raises:
        InputInvalid: a relative folder that may not be.
        ConfigurationError: a package for the scheme is missing.
    """
    text = os.fspath(out)
    if "://" in text and not text.startswith("file://"):
        return ObjectStore(text)
    path = Path(text.removeprefix("file://"))
    if not relative and not path.is_absolute():
        raise InputInvalid(f"[out] must be an absolute folder on the worker's machine, or a URL; got {text!r}")
    return ImageFolder(path)


async def keep_all(
    result: ImageResult, where: ImageFolder | ObjectStore, name: str, downloader: Downloader
) -> ImageResult:
    """Keep all images of a result, those that can be; the others become failures.

    Args:
        result: with URLs or base64.
        where: from ``store``.
        name: names the files where the result has no operation's id.
        downloader: fetches those that are URLs.

    Returns:
        The result with ``files``; without base64 that is in them.
    """
    taken = {failure.index for failure in result.failures}
    images = [*({"url": url} for url in result.urls), *({"b64": text} for text in result.b64)]
    places = [n for n in range(len(images) + len(taken)) if n not in taken]
    identity = result.operation_id or name
    work = [_keep(where, identity, place, image, downloader) for place, image in zip(places, images, strict=True)]
    ends = await asyncio.gather(*work)
    failures = [end for end in ends if isinstance(end, Failure)]
    return replace(
        result,
        files=tuple(end for end in ends if isinstance(end, str)),
        failures=(*result.failures, *failures),
        b64=result.b64 if failures else (),
    )


async def _keep(
    where: ImageFolder | ObjectStore, identity: str, index: int, image: Mapping[str, str], downloader: Downloader
) -> str | Failure:
    """Keep one image: its path or URL, or why there is none."""
    try:
        found = await downloader.fetch(image["url"]) if "url" in image else decoded(image["b64"])
        return await asyncio.to_thread(where.save, file_name(identity, index, found.extension), found.data)
    except NotKept as exc:
        return Failure(index, exc.code, exc.message, 1)
    except OSError as exc:
        return Failure(index, "not_written", f"the image could not be written: {exc.strerror or exc}", 1)
