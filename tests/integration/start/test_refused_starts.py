"""A server that cannot keep its promises does not start, and says what to change."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from soma_embedded import EmbeddedStores
from tests.support.stores import FreshDatabase


async def start(module: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run a server that should end by itself; returns its exit code and what it said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOMA_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env={**inherited, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, told = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


@pytest.fixture
def environment(stores: EmbeddedStores, fresh_database: FreshDatabase, redis_url: str) -> dict[str, str]:
    return {
        "SOMA_POSTGRES_URL": fresh_database.url,
        "SOMA_POSTGRES_ADMIN_URL": fresh_database.admin_url,
        "SOMA_MILVUS_URI": stores.milvus_uri,
        "SOMA_REDIS_URL": redis_url,
        "SOMA_MEMORY_ADDRESS": "127.0.0.1:0",
    }


NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"SOMA_VECTOR_BACKEND": "faiss"}, 2, "SOMA_VECTOR_BACKEND"),
        ({"SOMA_MILVUS_URI": ""}, 2, "SOMA_MILVUS_URI"),
        ({"SOMA_MILVUS_HOST": "localhost"}, 2, "keep one"),
        ({"SOMA_MILVUS_URI": "ftp://milvus"}, 2, "SOMA_MILVUS_URI"),
        ({"SOMA_POSTGRES_URL": f"postgresql://soma@{NOWHERE}/soma", "SOMA_POSTGRES_ADMIN_URL": ""}, 3, "postgres"),
        ({"SOMA_POSTGRES_ADMIN_URL": f"postgresql://soma@{NOWHERE}/soma"}, 3, "postgres"),
        ({"SOMA_MEMORY_TLS_CERT": "cert.pem"}, 2, "SOMA_MEMORY_TLS_KEY"),
        ({"SOMA_EMBEDDER": "word2vec"}, 2, "SOMA_EMBEDDER"),
        ({"SOMA_EMBEDDER": "openai"}, 2, "SOMA_EMBEDDER_BASE_URL"),
        ({"SOMA_EMBEDDER": "hashing"}, 2, "SOMA_TESTING"),
        ({"SOMA_EMBEDDER_DIMENSIONS": "100"}, 2, "SOMA_EMBEDDER_DIMENSIONS"),
        ({"SOMA_INDEX_BATCH": "0"}, 2, "SOMA_INDEX_BATCH"),
        ({"SOMA_BOOTSTRAP_KEY_FILE": "/nonexistent/keys.json"}, 3, "keys.json"),
    ],
)
async def test_a_memory_server_that_cannot_work_says_what_to_change(
    environment: dict[str, str], changes: dict[str, str], code: int, told: str
) -> None:
    returned, message = await start("memory_server", {**environment, **changes})
    assert (code, True) == (returned, told in message), message


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"SOMA_BRAIN_TLS_CERT": "cert.pem"}, 2, "SOMA_BRAIN_TLS_KEY"),
        ({"SOMA_SERVICE_CREDENTIAL_FILE": "/nonexistent/brain.key"}, 3, "brain.key"),
        ({"SOMA_WM_CAPACITY": "many"}, 2, "SOMA_WM_CAPACITY"),
    ],
)
async def test_a_brain_that_cannot_work_says_what_to_change(
    tmp_path: Path, changes: dict[str, str], code: int, told: str
) -> None:
    credential = tmp_path / "brain.key"
    credential.write_text("soma_0011223344556677_" + "x" * 43)
    environment = {
        "SOMA_DATA_DIR": str(tmp_path / "brain"),
        "SOMA_SERVICE_CREDENTIAL_FILE": str(credential),
        "SOMA_BRAIN_MEMORY_TARGET": NOWHERE,
        "SOMA_BRAIN_ADDRESS": "127.0.0.1:0",
    }
    returned, message = await start("brain_server", {**environment, **changes})
    assert (code, True) == (returned, told in message), message
