"""The provider: an OpenAI-like server of the scenario's shape, with its troubles. It counts as the stand-in does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import random
import struct
from collections.abc import Callable

import httpx

from penstock.stand_in.limits import Refusal, quota
from penstock.tasks.request.http import transport_outcome
from penstock.tasks.services.base import Refused, Request, Response

from .broker import Link
from .journal import Journal
from .scenario import Fault, Scenario

#: A text that holds this is refused for what it says.
BAD = "forbidden"


def vector(text: str) -> list[float]:
    """Return a text's vector: no other text has it."""
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return [float(byte) for byte in digest]


class Provider:
    """The server.

    Args:
        scenario: says its shape.
        journal: is told what it answers.
        chance: source of jitter and of what fails.
    """

    def __init__(self, scenario: Scenario, journal: Journal, chance: random.Random) -> None:
        self.shape, self.journal, self._chance = scenario.provider, journal, chance
        self._quota = quota(self.shape.window, self.shape.rpm, self.shape.tpm)
        self.troubles: list[Fault] = []
        self.in_flight = 0

    def trouble(self, kind: str) -> Fault | None:
        """Return a trouble of a kind that it has now."""
        return next((each for each in self.troubles if each.kind == kind), None)

    async def answer(self, request: Request) -> Response:
        """Answer one request, as it comes."""
        loop = asyncio.get_running_loop()
        texts: list[str] = json.loads(request.body)["input"]
        tokens = sum(math.ceil(len(text.encode()) / self.shape.bytes_per_token) for text in texts)
        await asyncio.sleep(0.002)
        self.in_flight += 1
        try:
            response = self._refusal(loop.time(), texts, tokens)
            good = response is None
            latency_s = self.shape.latency_s * (1 + self.shape.jitter * self._chance.random())
            await asyncio.sleep(latency_s if good else latency_s * 0.3)
            if response is None:
                response = self._answer(texts, tokens)
                self.journal.good_answers.update(texts)
        finally:
            self.in_flight -= 1
        lost = self.trouble("lost_answers")
        if lost is not None and self._chance.random() < lost.amount:
            self.journal.lost_answers += 1
            raise httpx.ReadError("the connection was reset")
        return response

    def _refusal(self, now: float, texts: list[str], tokens: int) -> Response | None:
        if self.trouble("bad_key"):
            return _error(401, "invalid_api_key", "Incorrect API key provided.")
        if self.trouble("capacity"):
            return _error(429, "capacity", "The model is overloaded. Try again later.")
        brown_out = self.trouble("brown_out")
        if self.trouble("blip") or (brown_out and self._chance.random() < brown_out.amount):
            return _error(500, "server_error", "The server had an error.")
        if (refusal := self._quota.admit(now, tokens)) is not None:
            self.journal.refused += 1
            self.journal.refused_at = now
            return _paced(refusal, self.shape.delay, self._headers(now))
        bad = [n for n, text in enumerate(texts) if BAD in text]
        if bad:
            where = f" in input[{bad[0]}]" if self.shape.names_culprit else ""
            return _error(400, "content_filter", f"The text was filtered{where}.")
        return None

    def _answer(self, texts: list[str], tokens: int) -> Response:
        rows = [
            {
                "object": "embedding",
                "index": n,
                "embedding": base64.b64encode(struct.pack("<4f", *vector(text))).decode(),
            }
            for n, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"object": "list", "data": rows, "model": "sim", "usage": usage}
        headers = {"content-type": "application/json", **self._headers(asyncio.get_running_loop().time())}
        return Response(200, headers, json.dumps(body).encode())

    def _headers(self, now: float) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.shape.headers == "none":
            return found
        factor = {"low": 0.1, "high": 10.0}.get(self.shape.headers, 1.0)
        for kind, gauge in self._quota.gauges(now).items():
            limit, remaining = gauge.per_minute * factor, max(0.0, gauge.per_minute - gauge.used) * factor
            if self.shape.headers == "nonsense":
                limit, remaining = -1.0, limit * 7
            found[f"x-ratelimit-limit-{kind}"] = f"{limit:.0f}"
            found[f"x-ratelimit-remaining-{kind}"] = f"{remaining:.0f}"
            found[f"x-ratelimit-reset-{kind}"] = f"{gauge.reset_s:.3f}s"
        return found


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    body = {"error": {"message": message, "type": code, "code": code, "param": None}}
    return Response(status, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode())


def _paced(refusal: Refusal, delay: str, headers: dict[str, str]) -> Response:
    words = f"Rate limit reached on {refusal.kind} per min. Limit: {refusal.per_minute:.0f}."
    if delay == "s":
        headers["retry-after"] = str(max(1, math.ceil(refusal.wait_s)))
    elif delay == "ms":
        headers["retry-after-ms"] = f"{max(1.0, refusal.wait_s * 1000):.0f}"
    return _error(429, "rate_limit_exceeded", words, headers)


class Http:
    """The HTTP client of one process, in place of ``HttpClient``.

    Args:
        link: the process, frozen or dead.
        provider: whom it reaches.
        on_send: is told of each request, before it is sent.
    """

    def __init__(self, link: Link, provider: Provider, on_send: Callable[[Link, Request], None]) -> None:
        self._link, self._provider, self._on_send = link, provider, on_send

    async def exchange(self, request: Request, timeout_s: float) -> Response:
        """Send one request and read the whole answer, as ``HttpClient`` does."""
        await self._link.thawed()
        self._on_send(self._link, request)
        # What was sent is on its way, whatever becomes of the sender.
        on_its_way = asyncio.ensure_future(self._provider.answer(request))
        try:
            async with asyncio.timeout(timeout_s):
                answer = await asyncio.shield(on_its_way)
        except TimeoutError:
            await self._link.thawed()
            raise Refused(transport_outcome(httpx.ReadTimeout("no answer"))) from None
        except httpx.HTTPError as exc:
            await self._link.thawed()
            raise Refused(transport_outcome(exc)) from exc
        await self._link.thawed()
        self._provider.journal.of(self._link.name).good += answer.status == 200
        return answer
