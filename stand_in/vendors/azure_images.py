"""Azure OpenAI's images by operation (2023-06-01-preview): submit, poll, delete.

Source: Azure OpenAI REST API reference of 2023, "Image generation", and its OpenAPI file.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from penstock.stand_in.answers.chat import CREATED
from penstock.stand_in.answers.image_jobs import ImageJob
from penstock.stand_in.answers.images import check_prompt, image_data, read_image
from penstock.stand_in.request import refusals
from penstock.stand_in.request.call import Call, Fault, Reply, StandInOperation, Work
from penstock.stand_in.request.delivery import whole
from penstock.stand_in.request.exchange import free_handler, handler
from penstock.stand_in.request.refusals import No, RequestRefused
from penstock.stand_in.vendors.azure_words import AZURE, check_version

_SIZES = ("256x256", "512x512", "1024x1024")
_FOREIGN = "http://127.0.0.1:9/openai/operations/images"  # the discard port: no one must ever call there


def read_submit(call: Call) -> Work:
    """Read ``prompt`` and ``n``; the path has no deployment."""
    check_version(call)
    return replace(read_image(call), model="")


def check_submit(call: Call, work: Work) -> None:
    """Hold the request to 1000 characters, 5 images, three sizes and the count of unfinished operations."""
    check_prompt(work, 1000, 5)
    size = call.body.get("size", "1024x1024")
    if size not in _SIZES:
        raise refusals.invalid(f"'size' must be one of {', '.join(_SIZES)}.", "size", value=size)
    most = call.options.image_operations
    if most is not None and sum(not job.finished for job in call.stand_in.image_jobs.values()) >= most:
        raise refusals.concurrency(most)


def answer_submit(call: Call, work: Work, fault: Fault | None) -> Reply:
    """Start an operation: 202, where to poll and how often."""
    options = call.options
    job = ImageJob(
        identity=str(uuid.uuid4()),
        prompt=work.texts[0],
        count=work.details,
        states=options.image_states,
        as_base64=call.body.get("response_format") == "b64_json",
        errors=options.image_poll_errors,
    )
    call.stand_in.image_jobs[job.identity] = job
    call.stand_in.stats.events["image_submits"] += 1
    headers = {**_pace(call), **_location(call, job)}
    body = {"id": job.identity, "status": "notRunning", "created": CREATED}
    return Reply(orjson.dumps(body), 202, headers=headers)


def _pace(call: Call) -> dict[str, str]:
    seconds = call.options.image_retry_after_s
    return {"retry-after": str(math.ceil(seconds))} if seconds else {}


def _location(call: Call, job: ImageJob) -> dict[str, str]:
    kind = call.options.image_location
    path = f"/openai/operations/images/{job.identity}?api-version={call.request.query['api-version']}"
    if kind == "missing":
        return {}
    if kind == "relative":
        return {"operation-location": path}
    if kind == "foreign":
        return {"operation-location": f"{_FOREIGN}/{job.identity}?api-version={call.request.query['api-version']}"}
    return {"operation-location": f"{call.request.scheme}://{call.request.host}{path}"}


def _job(call: Call) -> ImageJob:
    job = call.stand_in.image_jobs.get(call.request.match_info["identity"])
    if job is None:
        raise RequestRefused(No("invalid", 404, "The operation does not exist.", None, "NotFound"))
    return job


async def poll(call: Call) -> web.StreamResponse:
    """Tell where an operation stands, or fail as the options say."""
    stats = call.stand_in.stats
    stats.events["image_polls"] += 1
    job = _job(call)
    state = job.poll()
    if state is None:
        raise refusals.status(500)
    failed = state == "failed" and call.options.image_failed_status == "400"
    document = _document(call, job, state)
    if failed:  # as seen in the wild: a 400 with no more of the operation than this
        document = {name: document[name] for name in ("created", "error")}
    reply = Reply(orjson.dumps(document), 400 if failed else 200, headers=call.headers)
    if not job.finished:
        reply = Reply(reply.body, headers={**call.headers, **_pace(call)})
    stats.answered(call.stand_in.wall(), reply.status)
    return whole(reply)


def _document(call: Call, job: ImageJob, state: str) -> dict[str, Any]:
    document: dict[str, Any] = {"created": CREATED, "id": job.identity, "status": state}
    if state == "succeeded":
        data = image_data(call, job.prompt, job.count, job.as_base64)
        for place in range(min(call.options.image_item_errors, job.count)):
            data[place] = {"error": {"code": "contentFilter", "message": "This image was filtered."}}
        document |= {"expires": CREATED + 86_400, "result": {"created": CREATED, "data": data}}
    if state == "failed":
        message = "Your task failed as a result of our safety system."
        document["error"] = {"code": "contentFilter", "message": message}
    return document


async def delete(call: Call) -> web.StreamResponse:
    """Delete an operation that has ended; others are refused."""
    job = _job(call)
    if not job.finished:
        raise refusals.invalid("The operation has not ended: only ended operations can be deleted.", code="Conflict")
    del call.stand_in.image_jobs[job.identity]
    call.stand_in.stats.events["image_deletes"] += 1
    call.stand_in.stats.answered(call.stand_in.wall(), 204)
    return web.Response(status=204, headers=call.headers)


SUBMIT = StandInOperation("azure.images.submit", AZURE, read_submit, check_submit, answer_submit)


def routes() -> list[web.RouteDef]:
    """Return the routes of images by operation."""
    path = "/openai/operations/images/{identity}"
    return [
        web.post("/openai/images/generations:submit", handler(SUBMIT)),
        web.get(path, free_handler("azure.images.poll", AZURE, poll)),
        web.delete(path, free_handler("azure.images.delete", AZURE, delete)),
    ]
