"""Memories of other programs: each reader turns one documented form of export into memories.

A reader keeps what the memory was, who said it and when; what Soma has no field for goes into the payload.  Ids are the
foreign ones where those are UUIDs and derived from them otherwise, so importing the same export again finds the same
memories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from soma_client.readers import chatgpt, langgraph, letta, mem0
from soma_client.readers.documents import Documents
from soma_client.sources import Format

READERS: dict[str, Callable[[Mapping[str, str]], Format]] = {
    "mem0": lambda constants: Documents("mem0", mem0.memories, constants),
    "letta": lambda constants: Documents("letta", letta.memories, constants),
    "langgraph": lambda constants: Documents("langgraph", langgraph.memories, constants),
    "chatgpt": lambda constants: Documents("chatgpt", chatgpt.memories, constants),
}
"""Reader by name; each takes the fields that every memory is given."""
