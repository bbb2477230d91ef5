"""Remember and recall in twenty lines: start `soma up`, then `python examples/quickstart.py`."""

from __future__ import annotations

import os
from pathlib import Path

from soma_client import Soma

home = Path(os.environ.get("SOMA_HOME", "~/.soma")).expanduser()
key = os.environ.get("SOMA_KEY") or (home / "secrets" / "dev.key").read_text().strip()

with Soma.connect(os.environ.get("SOMA_TARGET", "127.0.0.1:9696"), key=key, persona="quickstart") as soma:
    soma.remember("Ada drinks tea with two sugars", key="user.preferences.drink", actor="Ada")
    soma.remember("The meeting with Grace is on Friday at ten", tags=["calendar"])
    soma.remember("Ada's train leaves from platform nine")

    answer = soma.recall_all("What does Ada like to drink?", limit=2)
    for hit in answer.hits:
        print(f"{hit.score:.3f}  {hit.memory.text}")
    print(f"degraded: {answer.summary.degraded}")
