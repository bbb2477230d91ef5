"""Choosing the embedder that the settings name."""

from __future__ import annotations

from pathlib import Path

from soma_contract.embedders.base import Embedder


class EmbedderSettingError(ValueError):
    """The settings describe no embedder; the message names the one to change."""


def build_embedder(
    kind: str,
    *,
    model: str = "",
    base_url: str = "",
    api_key: str = "",
    dimensions: int | None = None,
    threads: int = 1,
    cache_dir: Path | None = None,
    sentences: bool = True,
) -> Embedder:
    """Make the embedder of a kind, ``local``, ``openai`` or ``hashing``; enter it to use it.

    ``model``, ``base_url``, ``api_key`` and ``dimensions`` are of the endpoint, ``threads``, ``cache_dir`` and
    ``sentences`` of the local model.  Raises EmbedderSettingError, ModelMissingError or HashingRefusedError,
    each saying what to set or install.
    """
    match kind:
        case "local":
            from soma_contract.embedders.local import LocalEmbedder
            from soma_contract.embedders.wheel import MODEL_NAME, model_files

            if model not in ("", MODEL_NAME):
                raise EmbedderSettingError(
                    f"SOMA_EMBEDDER_MODEL is {model!r}, but the local embedder runs {MODEL_NAME} only: leave it empty, "
                    "or set SOMA_EMBEDDER=openai and SOMA_EMBEDDER_BASE_URL to an endpoint that serves that model"
                )
            if dimensions not in (None, 384):
                raise EmbedderSettingError(
                    f"SOMA_EMBEDDER_DIMENSIONS is {dimensions}, but {MODEL_NAME} gives 384: leave it empty"
                )
            model_files()  # a missing model is told now, not at the first text
            return LocalEmbedder(cache_dir, workers=threads, sentences=sentences)
        case "openai":
            from soma_contract.embedders.openai import OpenAIEmbedder

            if not base_url.startswith(("http://", "https://")):
                raise EmbedderSettingError(
                    f"SOMA_EMBEDDER_BASE_URL is {base_url!r}: set it to the http(s) address before '/embeddings', "
                    "e.g. https://api.openai.com/v1"
                )
            if not model:
                raise EmbedderSettingError("SOMA_EMBEDDER_MODEL is empty: set it to a model the endpoint serves")
            return OpenAIEmbedder(base_url, model, api_key=api_key, dimensions=dimensions)
        case "hashing":
            from soma_contract.embedders.hashing import HashingEmbedder

            return HashingEmbedder(dimensions or 384)
        case _:
            raise EmbedderSettingError(f"SOMA_EMBEDDER is {kind!r}: set it to 'local' or 'openai'")
