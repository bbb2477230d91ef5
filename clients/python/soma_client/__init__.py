"""Soma's client: asynchronous (SomaClient), blocking (Soma), and in three words (save, load, search).

Names are loaded when they are first used, so that the command line starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rpckit.channel import ChannelTls as ChannelTls
    from soma_client.answers import Forgotten as Forgotten
    from soma_client.answers import ForgottenMatching as ForgottenMatching
    from soma_client.answers import Outcome as Outcome
    from soma_client.answers import Remembered as Remembered
    from soma_client.blocking import Soma as Soma
    from soma_client.calling import Identity as Identity
    from soma_client.channel import open_soma_channel as open_soma_channel
    from soma_client.client import SomaClient as SomaClient
    from soma_client.recalling import RecallStream as RecallStream
    from soma_client.small_door import AgentContext as AgentContext
    from soma_client.small_door import Found as Found
    from soma_client.small_door import load_memory as load_memory
    from soma_client.small_door import save_memory as save_memory
    from soma_client.small_door import search_memory as search_memory
    from soma_contract.errors import SomaError as SomaError
    from soma_contract.memory import Kind as Kind
    from soma_contract.memory import Memory as Memory
    from soma_contract.memory import Remember as Remember
    from soma_contract.memory import Target as Target
    from soma_contract.recall import Preset as Preset
    from soma_contract.recall import RecallQuery as RecallQuery

_HOMES = {
    "AgentContext": "soma_client.small_door",
    "ChannelTls": "rpckit.channel",
    "Forgotten": "soma_client.answers",
    "ForgottenMatching": "soma_client.answers",
    "Found": "soma_client.small_door",
    "Identity": "soma_client.calling",
    "Kind": "soma_contract.memory",
    "Memory": "soma_contract.memory",
    "Outcome": "soma_client.answers",
    "Preset": "soma_contract.recall",
    "RecallQuery": "soma_contract.recall",
    "RecallStream": "soma_client.recalling",
    "Remember": "soma_contract.memory",
    "Remembered": "soma_client.answers",
    "Soma": "soma_client.blocking",
    "SomaClient": "soma_client.client",
    "SomaError": "soma_contract.errors",
    "Target": "soma_contract.memory",
    "load_memory": "soma_client.small_door",
    "open_soma_channel": "soma_client.channel",
    "save_memory": "soma_client.small_door",
    "search_memory": "soma_client.small_door",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 # the table is the list


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
