"""deploy/compose.yaml as a document, and what its services are started with, the names in it replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is started."""

    command: list[str]
    environment: dict[str, str]
    health: list[str]
    """The command of its health check; empty if there is none."""


def services(variables: Mapping[str, str], here: Mapping[str, str]) -> dict[str, Service]:
    """Every service, with the file's variables filled in and its names replaced by what they are ``here``."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

    def placed(value: object) -> str:
        text = _VARIABLE.sub(lambda found: variables.get(found[1]) or found[2] or "", str(value))
        for said, holds in here.items():
            text = text.replace(said, holds)
        return text

    return {
        name: Service(
            [placed(word) for word in one.get("command", [])],
            {key: placed(value) for key, value in one.get("environment", {}).items()},
            [placed(word) for word in one.get("healthcheck", {}).get("test", [])],
        )
        for name, one in loaded["services"].items()
    }
