"""Cuts the few schemas that the tests need out of the vendors' OpenAPI files, into ``specs/*.json``.

Run by hand, with the folder that holds the vendors' files::

    python tests/unit/services/extract_specs.py FOLDER

The files and where they come from:

- ``openai-openapi-2026-08-21.yaml``: github.com/openai/openai-openapi.
- ``azure-openai-2024-10-21.mockable.yaml``, ``azure-openai-2023-06-01-preview.images-embeddings.subset.yaml``:
  github.com/Azure/azure-rest-api-specs, specification/cognitiveservices/data-plane/AzureOpenAI/inference.
- ``azure-ai-model-inference.mockable.yaml``: Azure AI Model Inference, as Azure API Management imports it.

Descriptions, examples and extensions are left out, and what is no concern of ours (voices, predictions) is
left open, so that each result is a few kilobytes. ``nullable`` of OpenAPI 3.0 becomes JSON Schema's type ``null``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent / "specs"
DROPPED = {"description", "example", "examples", "title", "deprecated", "externalDocs", "discriminator", "default"}


@dataclass(frozen=True)
class Wanted:
    """One result: a schema of a file by its name or path, with the names that are left open."""

    source: str
    name: str
    pointer: str
    open: tuple[str, ...] = ()


OPENAI = "openai-openapi-2026-08-21.yaml"
AZURE = "azure-openai-2024-10-21.mockable.yaml"
AZURE_2023 = "azure-openai-2023-06-01-preview.images-embeddings.subset.yaml"
MODELS = "azure-ai-model-inference.mockable.yaml"
_AUDIO = ("Metadata", "VoiceIdsShared", "VoiceIdsOrCustomVoice", "PredictionContent")

WANTED = (
    Wanted(OPENAI, "openai.embeddings.request", "CreateEmbeddingRequest"),
    Wanted(OPENAI, "openai.embeddings.response", "CreateEmbeddingResponse"),
    Wanted(OPENAI, "openai.chat.request", "CreateChatCompletionRequest", _AUDIO),
    Wanted(OPENAI, "openai.chat.response", "CreateChatCompletionResponse"),
    Wanted(OPENAI, "openai.completions.request", "CreateCompletionRequest"),
    Wanted(OPENAI, "openai.completions.response", "CreateCompletionResponse"),
    Wanted(OPENAI, "openai.images.request", "CreateImageRequest"),
    Wanted(OPENAI, "openai.images.response", "ImagesResponse"),
    Wanted(OPENAI, "openai.error", "ErrorResponse"),
    Wanted(AZURE, "azureopenai.embeddings.request", "/deployments/{deployment-id}/embeddings"),
    Wanted(AZURE, "azureopenai.chat.request", "/deployments/{deployment-id}/chat/completions"),
    Wanted(AZURE, "azureopenai.completions.request", "/deployments/{deployment-id}/completions"),
    Wanted(AZURE, "azureopenai.images.request", "/deployments/{deployment-id}/images/generations"),
    Wanted(AZURE, "azureopenai.error", "errorResponse"),
    Wanted(AZURE_2023, "azureopenai-2023.embeddings.request", "EmbeddingsOptions"),
    Wanted(AZURE_2023, "azureopenai-2023.images.request", "ImageGenerationOptions"),
    Wanted(AZURE_2023, "azureopenai-2023.operation", "BatchImageGenerationOperationResponse"),
    Wanted(MODELS, "azureaistudio.chat.request", "CreateChatCompletionRequest"),
    Wanted(MODELS, "azureaistudio.embeddings.request", "CreateEmbeddingRequest"),
    Wanted(MODELS, "azureaistudio.image-embeddings.request", "CreateImageEmbeddingRequest"),
    Wanted(MODELS, "azureaistudio.info", "ModelInfo"),
    Wanted(MODELS, "azureaistudio.unprocessable", "UnprocessableContentError"),
)


def schema_of(document: dict[str, Any], pointer: str) -> Any:
    """A component schema, or the request body of a path's POST."""
    if not pointer.startswith("/"):
        return {"$ref": f"#/components/schemas/{pointer}"}
    return document["paths"][pointer]["post"]["requestBody"]["content"]["application/json"]["schema"]


def extract(document: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Return a JSON Schema that stands alone: the schema and all that it refers to, under ``$defs``."""
    defs: dict[str, Any] = {}
    top = _clean(schema_of(document, wanted.pointer))
    todo = list(_references(top))
    while todo:
        name = todo.pop()
        if name in defs:
            continue
        defs[name] = True if name in wanted.open else _clean(document["components"]["schemas"][name])
        todo += _references(defs[name])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": f"{wanted.source}: {wanted.pointer}"}
    return head | top | {"$defs": defs}


def _clean(node: Any) -> Any:
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {"$ref": node["$ref"].replace("#/components/schemas/", "#/$defs/")}
    kept = {key: _properties(value) if key == "properties" else _clean(value) for key, value in node.items()
            if key not in DROPPED and not key.startswith("x-")}  # fmt: skip
    if kept.pop("nullable", False) and isinstance(kept.get("type"), str):
        kept["type"] = [kept["type"], "null"]
        if "enum" in kept:
            kept["enum"] = [*kept["enum"], None]
    return kept


def _properties(properties: dict[str, Any]) -> dict[str, Any]:
    """A property may be called "description" or "default": only their values are cleaned."""
    return {name: _clean(value) for name, value in properties.items()}


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].removeprefix("#/$defs/")
        for value in node.values():
            yield from _references(value)


def main(folder: Path) -> None:
    """Write every result."""
    documents = {}
    for wanted in WANTED:
        if wanted.source not in documents:
            documents[wanted.source] = yaml.load((folder / wanted.source).read_text(), Loader=yaml.CSafeLoader)
        text = json.dumps(extract(documents[wanted.source], wanted), separators=(",", ":"))
        (HERE / f"{wanted.name}.json").write_text(text + "\n")
        print(f"{len(text):7} {wanted.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
