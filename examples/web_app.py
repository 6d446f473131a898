"""A web application that embeds without waiting: plain WSGI, so that any framework's version is easy to see in it.

    penstock worker                       # in one terminal
    python examples/web_app.py            # in another

    curl -d '{"texts": ["a gated pipe", "a turbine"]}' localhost:8000/embeddings
    curl localhost:8000/embeddings/ID

The endpoint's id is taken from ENDPOINT, "docs-embeddings" by default. Application and workers share a broker by
PENSTOCK_BROKER_URL; on one host with none set, ``penstock worker`` runs an embedded one that both find.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import make_server

from celery.states import READY_STATES, SUCCESS

from penstock.tasks import embed

ENDPOINT = os.environ.get("ENDPOINT", "docs-embeddings")
Answer = tuple[str, dict[str, Any]]


def enqueue(body: bytes) -> Answer:
    """Take texts, answer at once with the id under which their vectors will be."""
    texts = json.loads(body)["texts"]
    return "202 Accepted", {"id": embed.delay(texts, ENDPOINT).id}


def fetch(task_id: str) -> Answer:
    """Tell how a call stands; with its vectors when it is done."""
    call = embed.AsyncResult(task_id)
    state = call.state  # one look: the next may tell more
    if state not in READY_STATES:
        return "200 OK", {"state": state}
    if state != SUCCESS:
        return "502 Bad Gateway", {"state": state, "error": str(call.result)}
    result = call.result
    vectors: list[Any] = result.vectors.tolist()
    for failure in result.failures:
        vectors[failure.index] = None
    return "200 OK", {
        "state": state,
        "model": result.model,
        "vectors": vectors,
        "failures": [{"index": each.index, "code": each.code, "message": each.message} for each in result.failures],
    }


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Route the two paths of the example."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    try:
        if (method, path) == ("POST", "/embeddings"):
            status, answer = enqueue(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        elif method == "GET" and path.startswith("/embeddings/"):
            status, answer = fetch(path.removeprefix("/embeddings/"))
        else:
            status, answer = "404 Not Found", {"error": "POST /embeddings, then GET /embeddings/ID"}
    except (ValueError, KeyError, TypeError):
        status, answer = "400 Bad Request", {"error": 'send {"texts": ["...", ...]}'}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    with make_server("127.0.0.1", port, application) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
