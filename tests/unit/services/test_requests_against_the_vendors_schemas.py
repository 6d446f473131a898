"""Every request is as the vendor's OpenAPI file says, and so are the answers that the tests read.

The schemas in ``specs`` are cut out of the vendors' files by ``extract_specs.py``.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from penstock.tasks.services.base import CompleteCall, EmbedCall, ImageCall, Request
from support.wire import body_of, check_schema, endpoint, service

AZURE = {"resource_name": "r", "deployment_id": "d", "api_version": "2024-10-21"}
AZURE_2023 = AZURE | {"api_version": "2023-06-01-preview"}
MODELS = {"target": "https://r.services.ai.azure.com/models", "endpoint_type": "token", "provider": "cohere"}
OPENAI = {"model_id": "text-embedding-3-small"}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
CHAT = {"temperature": 0.5, "top_p": 1, "stop": ["x"], "tools": TOOLS, "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "max_tokens": 9, "frequency_penalty": 0.1, "seed": 1}  # fmt: skip
LEGACY = {"max_tokens": 5, "n": 2, "best_of": 3, "logprobs": 2, "echo": False, "stop": "x", "suffix": "!"}


def embed(
    name: str, settings: Any, task_type: str = "text_embedding", inputs: Any = ("a", "b"), **more: Any
) -> Request:
    call = EmbedCall(list(inputs), "ingest", more)
    return service(name).embed_request(endpoint(name, task_type, settings), call)


def complete(name: str, settings: Any, call: CompleteCall) -> Request:
    return service(name).complete_request(endpoint(name, "completion", settings), call)


def image(name: str, settings: Any, **parameters: Any) -> Request:
    target = endpoint(name, "image_generation", settings)
    return service(name).image_request(target, ImageCall("An avocado chair", {"user": "u"}, parameters))


@pytest.mark.parametrize(
    ("schema", "request_"),
    [
        ("openai.embeddings.request", embed("openai", OPENAI)),
        ("openai.embeddings.request", embed("openai", OPENAI | {"dimensions": 8}, user="u", encoding_format="float")),
        ("openai.embeddings.request", embed("openai", OPENAI, inputs=[[1, 2], [3]])),
        ("openai.chat.request", complete("openai", OPENAI, CompleteCall("Hello", task_settings={"user": "u"}))),
        ("openai.chat.request", complete("openai", OPENAI, CompleteCall(messages=MESSAGES, parameters=CHAT))),
        ("openai.chat.request", complete("openai", OPENAI, CompleteCall("a", stream=True, parameters={"n": 2}))),
        ("openai.completions.request", complete("openai", OPENAI, CompleteCall(["a", "b"], parameters=LEGACY))),
        ("openai.completions.request", complete("openai", OPENAI, CompleteCall(["a"], stream=True))),
        ("openai.images.request", image("openai", OPENAI)),
        ("openai.images.request", image("openai", {"model_id": "gpt-image-1"}, n=2, size="1024x1024", quality="high")),
        ("openai.images.request", image("openai", {"model_id": "dall-e-3"}, response_format="b64_json", style="vivid")),
        ("azureopenai.embeddings.request", embed("azureopenai", AZURE | {"dimensions": 8}, user="u")),
        ("azureopenai.chat.request", complete("azureopenai", AZURE, CompleteCall(messages=MESSAGES, parameters=CHAT))),
        ("azureopenai.chat.request", complete("azureopenai", AZURE, CompleteCall("a", stream=True))),
        ("azureopenai.completions.request", complete("azureopenai", AZURE, CompleteCall(["a"], parameters=LEGACY))),
        ("azureopenai.images.request", image("azureopenai", AZURE, n=1, size="1792x1024", quality="hd")),
        ("azureopenai-2023.embeddings.request", embed("azureopenai", AZURE_2023, user="u")),
        ("azureopenai-2023.images.request", image("azureopenai", AZURE_2023, n=3, size="512x512")),
        ("azureaistudio.embeddings.request", embed("azureaistudio", MODELS | {"dimensions": 8, "model": "m"})),
        ("azureaistudio.embeddings.request", embed("azureaistudio", MODELS, encoding_format="ubinary")),
        ("azureaistudio.chat.request", complete("azureaistudio", MODELS, CompleteCall("a"))),
        ("azureaistudio.chat.request",
         complete("azureaistudio", MODELS, CompleteCall(messages=MESSAGES, parameters=CHAT))),
        ("azureaistudio.image-embeddings.request",
         embed("azureaistudio", MODELS, "image_embedding", [{"image": "data:image/png;base64,aGk=", "text": "t"}])),
    ],
)  # fmt: skip
def test_a_request_is_as_the_vendor_says(schema: str, request_: Request) -> None:
    check_schema(schema, body_of(request_))


def test_the_schemas_tell_wrong_from_right() -> None:
    for schema, wrong in [
        ("openai.embeddings.request", {"model": "m", "input": [], "encoding_format": "hex"}),
        ("openai.embeddings.request", {"model": "m", "input": "a", "surprise": 1}),
        ("openai.chat.request", {"model": "m"}),
        ("openai.images.request", {}),
        ("azureopenai-2023.images.request", {"prompt": "a", "size": "1x1"}),
        ("azureaistudio.embeddings.request", {"input": "a"}),
    ]:
        with pytest.raises(jsonschema.ValidationError):
            check_schema(schema, wrong)


def test_the_answers_that_the_tests_read_are_the_vendors_too() -> None:
    usage = {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}
    message = {"role": "assistant", "content": "Hi", "refusal": None}
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
    head = {"id": "1", "created": 1, "model": "m", "usage": usage}
    check_schema(
        "openai.embeddings.response",
        {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 8, "total_tokens": 8}},
    )
    check_schema(
        "openai.chat.response", head | {"object": "chat.completion", "choices": [choice | {"message": message}]}
    )
    check_schema(
        "openai.completions.response", head | {"object": "text_completion", "choices": [choice | {"text": "a"}]}
    )
    check_schema("openai.images.response", {"created": 1, "data": [{"url": "https://i", "revised_prompt": "p"}]})
    error = {"message": "m", "type": "t", "param": None, "code": None}
    check_schema("openai.error", {"error": error})
    check_schema("azureopenai.error", {"error": {"code": "DeploymentNotFound", "message": "m"}})
    check_schema(
        "azureaistudio.unprocessable",
        {"status": 422, "code": "c", "error": "e", "message": "m", "detail": {"loc": ["body", "x"], "value": "v"}},
    )
