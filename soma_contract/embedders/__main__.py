"""``python -m soma_contract.embedders``: build the local model now, so that no server has to at its first start."""

from __future__ import annotations

import asyncio
import sys

from soma_contract.embedders.local import LocalEmbedder


async def build() -> str:
    """Build the model into the cache unless it is there; returns its name.  Raises ModelMissingError."""
    async with LocalEmbedder(sentences=False) as embedder:
        return embedder.profile.key


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(build())}\n")
