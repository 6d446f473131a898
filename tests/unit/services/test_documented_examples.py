"""The examples that the vendors' and Elasticsearch's pages print: each request is made, each answer and error read.

Pages: Elasticsearch, "Create an Azure OpenAI inference endpoint", "Create an OpenAI inference endpoint" and "OpenAI
inference service"; Microsoft, "Azure AI Model Inference REST API reference" and "Azure OpenAI Service REST API
reference" (2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.config.endpoints.validation import validate_endpoint
from penstock.config.settings import Settings
from penstock.tasks.services.base import CompleteCall, EmbedCall, ImageCall
from penstock.workers.lanes.outcome import OutcomeKind
from penstock.workers.results.types import Usage
from support.wire import answer, body_of, endpoint, service

AZURE_BODY = {
    "service": "azureopenai",
    "service_settings": {
        "api_key": "Api-Key",
        "resource_name": "Resource-name",
        "deployment_id": "Deployment-id",
        "api_version": "2024-02-01",
    },
}
OPENAI_EMBEDDINGS = {
    "service": "openai",
    "service_settings": {"api_key": "OpenAI-API-Key", "model_id": "text-embedding-3-small", "dimensions": 128},
}
OPENAI_COMPLETION = {
    "service": "openai",
    "service_settings": {"api_key": "OpenAI-API-Key", "model_id": "gpt-3.5-turbo"},
}
BEDROCK_COMPLETION = {
    "service": "amazonbedrock",
    "service_settings": {
        "access_key": "AWS-access-key",
        "secret_key": "AWS-secret-key",
        "region": "us-east-1",
        "provider": "amazontitan",
        "model": "amazon.titan-text-premier-v1:0",
    },
}


@pytest.mark.parametrize(
    ("task_type", "body", "rate", "sent_to"),
    [
        ("completion", AZURE_BODY, 120,
         "https://Resource-name.openai.azure.com/openai/deployments/Deployment-id/chat/completions?api-version=2024-02-01"),
        ("text_embedding", AZURE_BODY, 1440,
         "https://Resource-name.openai.azure.com/openai/deployments/Deployment-id/embeddings?api-version=2024-02-01"),
        ("text_embedding", OPENAI_EMBEDDINGS, 3000, "https://api.openai.com/v1/embeddings"),
        ("completion", OPENAI_COMPLETION, 500, "https://api.openai.com/v1/chat/completions"),
        ("chat_completion", OPENAI_COMPLETION, 500, "https://api.openai.com/v1/chat/completions"),
        ("completion", BEDROCK_COMPLETION, 240,
         "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-text-premier-v1:0/converse"),
    ],
)  # fmt: skip
def test_the_endpoints_of_elasticsearch_s_pages_are_valid_and_send_where_they_should(
    task_type: str, body: Any, rate: float, sent_to: str
) -> None:
    made = validate_endpoint(task_type, "documented", body, Settings())
    assert made.rate_limit.requests_per_minute == rate
    wire = service(made.service)
    if task_type == "text_embedding":
        assert wire.embed_request(made, EmbedCall(["a"])).url == sent_to
    else:
        assert wire.complete_request(made, CompleteCall("a")).url == sent_to


def test_the_openai_page_s_endpoint_asks_for_its_128_dimensions() -> None:
    made = validate_endpoint("text_embedding", "openai-embeddings", OPENAI_EMBEDDINGS, Settings())
    request = service("openai").embed_request(made, EmbedCall(["a"]))
    assert body_of(request)["dimensions"] == 128
    assert request.headers["Authorization"] == "Bearer OpenAI-API-Key"


# Azure AI Model Inference

MODELS = {"target": "https://res.services.ai.azure.com/models", "endpoint_type": "token", "provider": "mistral"}
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Explain Riemann's conjecture in 1 paragraph"},
]


def test_a_parameter_of_the_model_s_own_is_passed_through() -> None:
    call = CompleteCall(
        messages=MESSAGES,
        task_settings={"extra_parameters": "pass-through"},
        parameters={"temperature": 0, "top_p": 1, "response_format": {"type": "text"}, "safe_prompt": True},
    )
    request = service("azureaistudio").complete_request(endpoint("azureaistudio", "chat_completion", MODELS), call)
    assert request.url.endswith("/chat/completions?api-version=2024-05-01-preview")
    assert request.headers["Authorization"].startswith("Bearer ")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["extra-parameters"] == "pass-through"
    assert body_of(request) == {
        "messages": MESSAGES,
        "temperature": 0,
        "top_p": 1,
        "response_format": {"type": "text"},
        "safe_prompt": True,
    }


def test_a_parameter_that_the_model_does_not_support_is_named() -> None:
    body = {
        "status": 422,
        "code": "parameter_not_supported",
        "detail": {"loc": ["body", "response_format"], "input": "json_object"},
        "message": "One of the parameters contain invalid values.",
    }
    outcome = service("azureaistudio").refusal(answer(body, 422))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REQUEST_REFUSED, "parameter_not_supported")
    assert "response_format" in outcome.message
    assert "json_object" in outcome.message


def test_a_filtered_chat_is_the_input_s_fault() -> None:
    body = {
        "status": 400,
        "code": "content_filter",
        "message": "The response was filtered",
        "param": "messages",
        "type": None,
    }
    outcome = service("azureaistudio").refusal(answer(body, 400))
    assert (outcome.kind, outcome.code) == (OutcomeKind.INPUT_REFUSED, "content_filter")
    assert outcome.message.startswith("The response was filtered")


# Azure OpenAI

AZURE = service("azureopenai")
ROOT = "https://YOUR_RESOURCE_NAME.openai.azure.com/openai"
NAMES = {"resource_name": "YOUR_RESOURCE_NAME", "deployment_id": "YOUR_DEPLOYMENT_NAME"}


def azure(task_type: str, version: str = "2023-05-15", **secrets: str) -> Any:
    return endpoint("azureopenai", task_type, NAMES | {"api_version": version}, {"api_key": "YOUR_API_KEY"} | secrets)


def test_a_completion_of_2023() -> None:
    call = CompleteCall(["Once upon a time"], parameters={"max_tokens": 5})
    request = AZURE.complete_request(azure("completion"), call)
    assert request.url == f"{ROOT}/deployments/YOUR_DEPLOYMENT_NAME/completions?api-version=2023-05-15"
    assert request.headers["api-key"] == "YOUR_API_KEY"
    assert body_of(request) == {"prompt": ["Once upon a time"], "max_tokens": 5}
    body = {
        "id": "cmpl-4kGh7iXtjW4lc9eGhff6Hp8C7btdQ",
        "object": "text_completion",
        "created": 1646932609,
        "model": "ada",
        "choices": [{"text": ", a dark line crossed", "index": 0, "logprobs": None, "finish_reason": "length"}],
    }
    found = AZURE.read_completion(azure("completion"), call, answer(body))
    assert (found.choices[0].text, found.choices[0].finish_reason) == (", a dark line crossed", "length")
    assert (found.model, found.usage) == ("ada", Usage(requests=1))


def test_an_embedding_of_2023() -> None:
    call = EmbedCall(["The food was delicious and the waiter..."])
    request = AZURE.embed_request(azure("text_embedding"), call)
    assert request.url == f"{ROOT}/deployments/YOUR_DEPLOYMENT_NAME/embeddings?api-version=2023-05-15"
    assert body_of(request)["input"] == ["The food was delicious and the waiter..."]
    row = [0.018990106880664825, -0.0073810814639389515, 0.021276434883475304]
    body = {
        "object": "list",
        "data": [{"object": "embedding", "embedding": row, "index": 0}],
        "model": "text-similarity-babbage:001",
    }
    found = AZURE.read_embeddings(azure("text_embedding"), call, answer(body))
    assert found.vectors.tolist() == np.array([row], np.float32).tolist()
    assert found.model == "text-similarity-babbage:001"


def test_a_deployment_that_takes_one_input_says_so() -> None:
    message = (
        "InvalidRequestError: Too many inputs. The max number of inputs is 1. We hope to increase the number of inputs "
        "per request soon."
    )
    outcome = AZURE.refusal(answer({"error": {"message": message, "type": "invalid_request_error"}}, 400))
    assert (outcome.kind, outcome.max_inputs) == (OutcomeKind.TOO_LARGE, 1)


def test_a_chat_of_2023() -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Does Azure OpenAI support customer managed keys?"},
        {"role": "assistant", "content": "Yes, customer managed keys are supported by Azure OpenAI."},
        {"role": "user", "content": "Do other Azure AI services support this too?"},
    ]
    request = AZURE.complete_request(azure("chat_completion"), CompleteCall(messages=messages))
    assert request.url == f"{ROOT}/deployments/YOUR_DEPLOYMENT_NAME/chat/completions?api-version=2023-05-15"
    assert body_of(request) == {"messages": messages}
    body = {
        "id": "chatcmpl-6v7mkQj980V1yBec6ETrKPRqFjNw9",
        "object": "chat.completion",
        "created": 1679072642,
        "model": "gpt-35-turbo",
        "usage": {"prompt_tokens": 58, "completion_tokens": 68, "total_tokens": 126},
        "choices": [
            {
                "message": {"role": "assistant", "content": "Yes, other Azure AI services also support them."},
                "finish_reason": "stop",
                "index": 0,
            }
        ],
    }
    found = AZURE.read_completion(azure("chat_completion"), CompleteCall(messages=messages), answer(body))
    assert found.choices[0].text.startswith("Yes, other Azure AI services")
    assert found.usage == Usage(58, 68, 126, requests=1)


QUESTION = [
    {"role": "user", "content": "What are the differences between Azure Machine Learning and Azure AI services?"}
]


def test_a_chat_on_your_data() -> None:
    source = {
        "type": "AzureCognitiveSearch",
        "parameters": {"endpoint": "https://search", "key": "K", "indexName": "I"},
    }
    target = azure("chat_completion", "2023-06-01-preview", chatgpt_key="YOUR_API_KEY")
    call = CompleteCall(
        messages=QUESTION,
        task_settings={"chatgpt_url": "https://YOUR_RESOURCE_URL"},
        parameters={"dataSources": [source]},
    )
    request = AZURE.complete_request(target, call)
    assert request.url == (
        f"{ROOT}/deployments/YOUR_DEPLOYMENT_NAME/extensions/chat/completions?api-version=2023-06-01-preview"
    )
    assert request.headers["chatgpt_url"] == "https://YOUR_RESOURCE_URL"
    assert request.headers["chatgpt_key"] == "YOUR_API_KEY"
    assert body_of(request) == {"dataSources": [source], "messages": QUESTION}
    said = "Azure AI services are cloud-based artificial intelligence (AI) services [doc1]."
    body = {
        "id": "12345678-1a2b-3c4e5f-a123-12345678abcd",
        "model": "",
        "created": 1684304924,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "messages": [
                    {"role": "tool", "content": '{"citations": [], "intent": "[]"}', "end_turn": False},
                    {"role": "assistant", "content": said, "end_turn": True},
                ],
            }
        ],
    }
    found = AZURE.read_completion(target, call, answer(body))
    assert found.choices[0].text == said
    assert found.extra["messages"][0]["role"] == "tool"


OPERATION = "f508bcf2-e651-4b4b-85a7-58ad77981ffa"
DONE = "4b755937-3173-4b49-bf3f-da6702a3971a"


def test_images_are_submitted_polled_and_deleted() -> None:
    target = azure("image_generation", "2023-06-01-preview")
    call = ImageCall("An avocado chair", {}, {"size": "512x512", "n": 3})
    request = AZURE.image_request(target, call)
    assert request.url == f"{ROOT}/images/generations:submit?api-version=2023-06-01-preview"
    assert body_of(request) == {"prompt": "An avocado chair", "size": "512x512", "n": 3}

    submitted = AZURE.read_image(target, call, answer({"id": OPERATION, "status": "notRunning"}, 202))
    assert (submitted.state, submitted.operation_id) == ("SUBMITTED", OPERATION)
    assert submitted.poll_url == f"{ROOT}/operations/images/{OPERATION}?api-version=2023-06-01-preview"

    poll = AZURE.poll_request(target, submitted.poll_url)
    assert (poll.method, poll.headers["api-key"]) == ("GET", "YOUR_API_KEY")
    images = ["https://images/1", "https://images/2"]
    body = {
        "created": 1685064331,
        "expires": 1685150737,
        "id": DONE,
        "result": {"data": [{"url": url} for url in images]},
        "status": "succeeded",
    }
    found = AZURE.read_poll(target, submitted.poll_url, answer(body))
    assert (found.state, list(found.urls), found.operation_id) == ("SUCCEEDED", images, DONE)

    delete = AZURE.delete_request(target, submitted.poll_url)
    assert delete is not None
    assert (delete.method, delete.url) == ("DELETE", submitted.poll_url)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("notRunning", "RUNNING"),
        ("running", "RUNNING"),
        ("canceled", "FAILED"),
        ("failed", "FAILED"),
        ("deleted", "FAILED"),
    ],
)
def test_each_state_that_the_page_lists_is_known(status: str, state: str) -> None:
    target = azure("image_generation", "2023-06-01-preview")
    url = f"{ROOT}/operations/images/{OPERATION}?api-version=2023-06-01-preview"
    assert AZURE.read_poll(target, url, answer({"id": OPERATION, "status": status})).state == state


def test_a_token_of_active_directory_is_a_bearer() -> None:
    target = endpoint("azureopenai", "completion", NAMES | {"api_version": "v"}, {"entra_id": "YOUR_AUTH_TOKEN"})
    assert AZURE.complete_request(target, CompleteCall("a")).headers["Authorization"] == "Bearer YOUR_AUTH_TOKEN"


def test_the_end_mark_of_a_streamed_chat_on_your_data() -> None:
    reader = AZURE.stream_reader(azure("chat_completion"), CompleteCall("a", stream=True))
    end = b'data: {"messages": [{"delta": {"content": "[DONE]"}, "index": 2, "end_turn": true}]}\n\n'
    assert [delta.done for delta in reader.feed(end)] == [True]
    reader.close()
