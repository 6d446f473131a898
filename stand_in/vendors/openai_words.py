"""OpenAI's error bodies, and those of servers that speak its format but not its errors."""

from __future__ import annotations

from typing import Any

import orjson

from penstock.stand_in.request.call import Call, Reply
from penstock.stand_in.request.refusals import No, with_delay


class OpenAIWords:
    """``{"error": {"message", "type", "param", "code"}}``, or what ``--errors`` asks for."""

    name = "openai"

    def words(self, call: Call, no: No) -> Reply:
        shape = call.options.errors
        no = with_delay(no, call.options.retry_after)
        if shape == "text":
            return Reply(no.message.encode(), no.status, "text/plain")
        return Reply(orjson.dumps(_body(shape, no)), no.status)


def _body(shape: str, no: No) -> dict[str, Any]:
    if shape == "detail":  # FastAPI: vLLM's validation, TEI's proxies
        return {"detail": no.message}
    if shape == "string":  # Ollama
        return {"error": no.message}
    if shape == "integer-code":  # vLLM, llama.cpp
        return {"object": "error", "message": no.message, "type": "BadRequestError", "param": None, "code": no.status}
    return {"error": {"message": no.message, "type": no.type, "param": no.param, "code": no.code}}


OPENAI = OpenAIWords()
