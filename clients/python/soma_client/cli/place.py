"""Where the command line calls, and as whom: flags, environment, data directory, in this order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soma_client.client import SomaClient

BRAIN = "127.0.0.1:9696"
MEMORY_SERVER = "127.0.0.1:9595"


@dataclass(frozen=True, slots=True)
class Place:
    """What the global options say."""

    target: str = BRAIN
    memory_target: str = MEMORY_SERVER
    api_key: str = ""
    tenant: str = ""
    persona: str = ""
    session: str = ""
    namespace: str = "default"
    tls_ca: Path | None = None
    timeout_s: float | None = None
    json: bool = False

    def key(self) -> str:
        """The key given, or else the development key of the data directory; empty if there is neither."""
        if self.api_key:
            return self.api_key
        try:
            return development_key_file().read_text().strip()
        except OSError:
            return ""

    def connect(self, *, memory_server: bool = False) -> SomaClient:
        """A client of the brain, or of the memory server behind it."""
        from rpckit.channel import ChannelTls
        from soma_client.client import SomaClient

        return SomaClient.connect(
            self.memory_target if memory_server else self.target,
            key=self.key(),
            tenant=self.tenant,
            persona=self.persona,
            session=self.session,
            namespace=self.namespace,
            tls=ChannelTls(root_ca=self.tls_ca) if self.tls_ca else None,
        )


def data_directory() -> Path:
    """Where `soma up` keeps everything unless told otherwise: $SOMA_HOME or ~/.soma."""
    return Path(os.environ.get("SOMA_HOME") or "~/.soma").expanduser()


def development_key_file() -> Path:
    """Where `soma up` leaves its key."""
    return data_directory() / "secrets" / "dev.key"
