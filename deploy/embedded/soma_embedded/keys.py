"""The keys of a data directory: one for its developer, one for its brain server."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from soma_embedded.directory import DataDirectory, write_private

DEVELOPMENT_TENANT = "dev"
BRAIN_SCOPES = ("act-as", "memory:*", "graph:*", "batch:*", "operator:read")


class Keys:
    """Makes the keys when a directory is first used and keeps them.

    secrets/dev.key       tenant `dev`, every scope; the key `soma up` prints
    secrets/brain.key     the brain's credential: may do what agents do, for any tenant; administers nothing
    secrets/bootstrap.json  both, as the memory server registers them at start
    """

    def __init__(self, directory: DataDirectory) -> None:
        place = directory.place("secrets")
        self.development_file = place / "dev.key"
        self.brain_file = place / "brain.key"
        self.bootstrap_file = place / "bootstrap.json"
        self.development = _kept(self.development_file)
        brain = _kept(self.brain_file)
        # The brain checks its callers' scopes itself and then calls with its own key: whatever agents may be allowed.
        entries = [
            {"key": self.development, "tenants": [DEVELOPMENT_TENANT], "scopes": ["*"], "label": "development"},
            {"key": brain, "tenants": ["*"], "scopes": list(BRAIN_SCOPES), "label": "brain"},
        ]
        write_private(self.bootstrap_file, json.dumps(entries, indent=2))


def _kept(path: Path) -> str:
    try:
        if key := path.read_text().strip():
            return key
    except FileNotFoundError:
        pass
    key = f"soma_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    write_private(path, key)
    return key
