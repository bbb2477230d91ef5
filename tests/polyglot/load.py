"""A load smoke with ghz: a few hundred calls at once from outside, all answered, every acknowledged write there.

No measurement: it runs beside whatever else the machine does. ``./dev bench`` measures.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from soma.memory.v1 import memory_service_pb2 as pb
from tests.support.stack import Agent, Office

WRITES = 300
RECALLS = 60
AT_ONCE = 8
WITHIN_S = 120.0

_NOTE = (
    '{"memory": {"key": "load.{{.RequestNumber}}", "text": "Note {{.RequestNumber}} of an agent that writes a lot"}}'
)
_QUESTION = '{"text": "what does note {{.RequestNumber}} say?", "limit": 5}'


async def smoke(ghz: Path, office: Office) -> str:
    """What went wrong; empty if nothing did."""
    agent = await office.agent()
    for rpc, body, calls in (("Remember", _NOTE, WRITES), ("Recall", _QUESTION, RECALLS)):
        statuses = await _asked(ghz, office.stack.brain_address, agent, rpc, body, calls)
        if statuses != {"OK": calls}:
            return f"{calls} calls of {rpc} ended with {statuses}"
    kept = await _kept(agent)
    wanted = {f"load.{number}" for number in range(WRITES)}
    return "" if kept == wanted else f"acknowledged and not there: {sorted(wanted - kept)[:10]}"


async def _asked(ghz: Path, address: str, agent: Agent, rpc: str, body: str, calls: int) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as metadata:
        json.dump(dict(agent.metadata), metadata)
        metadata.flush()
        settings = {
            "--call": f"soma.memory.v1.MemoryService.{rpc}",
            "--data": body,
            "--metadata-file": metadata.name,
            "--total": calls,
            "--concurrency": AT_ONCE,
            "--connections": 2,
            "--timeout": "20s",
            "--format": "json",
        }
        words = [str(word) for setting in settings.items() for word in setting]
        process = await asyncio.create_subprocess_exec(
            ghz, "--insecure", *words, address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                printed, complaints = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            return {f"not done after {WITHIN_S:.0f} s": calls}
    if process.returncode != 0:
        return {complaints.decode(errors="replace").strip(): calls}
    statuses: dict[str, Any] = json.loads(printed)["statusCodeDistribution"]
    return statuses


async def _kept(agent: Agent) -> set[str]:
    request = pb.ListRequest(key_prefix="load.", page_size=1000)
    answer = await agent.memory.List(request, metadata=agent.metadata, timeout=20)
    return {memory.key for memory in answer.memories}
