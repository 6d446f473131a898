"""Image generation in OpenAI's wire format, answered at once: tiny pictures, as base64 or as URLs of our own."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.answers.chat import CREATED
from penstock.stand_in.answers.png import colour_of, png
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, Work
from penstock.stand_in.tokens import estimate

PATH = "/_stand_in/images"


def read_image(call: Call) -> Work:
    """Read ``prompt`` and ``n``."""
    prompt, count = call.body.get("prompt"), call.body.get("n", 1)
    if not isinstance(prompt, str) or not prompt:
        raise refusals.invalid("'prompt' must be a string that is not empty.", "prompt")
    if not isinstance(count, int) or isinstance(count, bool):
        raise refusals.invalid("'n' must be a whole number.", "n", value=count)
    tokens = estimate([prompt], call.options.bytes_per_token)
    return Work(str(call.body.get("model", "dall-e-2")), [prompt], tokens, sum(tokens), "prompt", count)


def check_image(call: Call, work: Work) -> None:
    """Hold the request to what its model takes."""
    model = work.model
    gpt = model.startswith("gpt-image")
    longest = 32_000 if gpt else 4_000 if model == "dall-e-3" else 1_000
    check_prompt(work, longest, 1 if model == "dall-e-3" else 10)
    if gpt and "response_format" in call.body:
        raise refusals.unsupported("response_format", call.body["response_format"])


def check_prompt(work: Work, longest: int, most: int) -> None:
    """Hold the prompt to its length and ``n`` to its bounds."""
    if len(work.texts[0]) > longest:
        raise refusals.invalid(
            f"'prompt' is too long: at most {longest} characters.", "prompt", "string_above_max_length"
        )
    if not 1 <= work.details <= most:
        raise refusals.invalid(f"'n' must be from 1 to {most}.", "n", value=work.details)


def image_data(call: Call, prompt: str, count: int, as_base64: bool) -> list[dict[str, Any]]:
    """Return the ``data`` of an answer."""
    data: list[dict[str, Any]] = []
    for number in range(count):
        colour = colour_of(prompt, number)
        if as_base64:
            data.append({"b64_json": base64.b64encode(png(colour)).decode("ascii")})
        else:
            data.append({"url": f"{call.request.scheme}://{call.request.host}{PATH}/{colour:06x}.png"})
    return data


def answer_image(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Answer with the pictures."""
    gpt = work.model.startswith("gpt-image")
    data = image_data(call, work.texts[0], work.details, gpt or call.body.get("response_format") == "b64_json")
    body: dict[str, Any] = {"created": CREATED, "data": data}
    if work.model == "dall-e-3":
        for item in data:
            item["revised_prompt"] = f"A small square of one colour: {work.texts[0]}"
    if gpt:
        asked, made = sum(work.tokens), 100 * work.details
        body["usage"] = {
            "input_tokens": asked,
            "input_tokens_details": {"text_tokens": asked, "image_tokens": 0},
            "output_tokens": made,
            "total_tokens": asked + made,
        }
    return Reply(orjson.dumps(body))


async def picture(request: web.Request) -> web.Response:
    """Serve a picture by its colour."""
    name = request.match_info["name"].removesuffix(".png")
    try:
        colour = int(name, 16)
    except ValueError:
        raise web.HTTPNotFound from None
    return web.Response(body=png(colour & 0xFFFFFF), content_type="image/png")
