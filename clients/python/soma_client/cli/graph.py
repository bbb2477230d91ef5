"""graph show and graph path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from soma_client.cli.running import place_of, talk

if TYPE_CHECKING:
    from soma.graph.v1 import graph_service_pb2 as pb
    from soma.memory.v1 import memory_pb2
    from soma_client.client import SomaClient

graph = typer.Typer(no_args_is_help=True, help="Links between memories: draw them, find ways.")
RELATION = typer.Option([], "--relation", help="Follow only links of this relation; may be given more than once.")
MIN_STRENGTH = typer.Option(0.0, "--min-strength", min=0.0, max=1.0, help="Follow only links at least so strong.")


@graph.command()
def show(
    context: typer.Context,
    memory_id: str = typer.Argument(help="Id of the memory in the middle."),
    radius: int = typer.Option(2, "--radius", "-r", min=0, max=3, help="Links away."),
    out: Path | None = typer.Option(None, "--out", help="Draw into this file: .svg, .html or .dot."),
    max_nodes: int = typer.Option(100, "--max-nodes", min=1, max=10_000, help="At most so many memories."),
    relation: list[str] = RELATION,
    min_strength: float = MIN_STRENGTH,
) -> None:
    """Show a memory's neighbourhood: as a list, or drawn into a file."""
    from soma_client.cli.drawing import Picture, writers

    write = None
    if out is not None:
        write = writers().get(out.suffix.lower())
        if write is None:
            raise typer.BadParameter(f"must end in {', '.join(writers())}", param_hint="--out")

    async def work(soma: SomaClient) -> None:
        picture, partial = Picture(), ""
        async for frame in soma.subgraph(
            [memory_id],
            radius=radius,
            max_nodes=max_nodes,
            relations=relation,
            min_strength=min_strength,
            timeout_s=place_of(context).timeout_s,
        ):
            picture.add(frame)
            partial = frame.summary.spent
        if not picture.memories:
            from soma_contract.errors import MemoryNotFoundError

            raise MemoryNotFoundError(memory_id=memory_id)
        if write is not None and out is not None:
            write(picture, out)
        _tell(picture.memories, picture.depths, picture.links, out, as_json=place_of(context).json)
        if partial:
            sys.stderr.write(f"partial  there is more: the budget of {partial} was spent\n")

    talk(context, work)


@graph.command()
def path(
    context: typer.Context,
    source: str = typer.Argument(help="Id of the memory where the way starts."),
    target: str = typer.Argument(help="Id of the memory where it ends."),
    max_length: int = typer.Option(6, "--max-length", min=1, max=10, help="At most so many links."),
    paths: int = typer.Option(1, "--paths", "-n", min=1, max=10, help="At most so many ways."),
    relation: list[str] = RELATION,
    min_strength: float = MIN_STRENGTH,
) -> None:
    """Print the cheapest ways between two memories, each a chain."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        found: list[pb.MemoryPath] = []
        partial = ""
        async for frame in soma.find_path(
            source,
            target,
            max_length=max_length,
            max_paths=paths,
            relations=relation,
            min_strength=min_strength,
            timeout_s=place_of(context).timeout_s,
        ):
            if frame.HasField("path"):
                found.append(frame.path)
            partial = frame.summary.spent
        if place_of(context).json:
            output.document({"paths": [output.wire(one) for one in found], "partial": bool(partial)})
        else:
            for one in found:
                sys.stdout.write(await _chain(soma, one))
            if not found:
                sys.stdout.write("no path\n")
        if partial:
            sys.stderr.write(f"partial  there may be more, or better: the budget of {partial} was spent\n")

    talk(context, work)


async def _chain(soma: SomaClient, found: pb.MemoryPath) -> str:
    """A path as lines: a memory, the link that leads on, the next memory."""
    from soma_client.cli.drawing import label
    from soma_client.cli.output import shown

    texts = []
    for memory_id in found.memory_ids:
        memory = await soma.get(memory_id)
        texts.append(f"{shown(label(memory.text, 80))}  ({memory_id})")
    lines = [texts[0]]
    for before, link, text in zip(found.memory_ids, found.links, texts[1:], strict=False):
        line = f"{shown(link.relation)} {link.strength:.2f}"
        lines += [f"  ── {line} ─▶" if link.source_id == before else f"  ◀─ {line} ──", text]
    return "\n".join(lines) + f"\ncost {found.cost:.3f}\n"


def _tell(
    memories: list[memory_pb2.Memory],
    depths: list[int],
    links: list[pb.MemoryLink],
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    from soma_client.cli import output
    from soma_client.cli.drawing import label

    if as_json:
        nodes = [
            {"depth": depth, "memory": output.wire(memory)} for memory, depth in zip(memories, depths, strict=True)
        ]
        told = {"nodes": nodes, "links": [output.wire(link) for link in links]}
        output.document({**told, "out": str(out)} if out is not None else told)
        return
    if out is not None:
        sys.stdout.write(f"{out}  {len(memories)} memories, {len(links)} links\n")
        return
    output.table(
        (">away", "text", "id"),
        [(depth, memory.text, memory.memory_id) for memory, depth in zip(memories, depths, strict=True)],
    )
    texts = {memory.memory_id: label(memory.text) for memory in memories}
    if links:
        output.table(
            ("from", "relation", ">strength", "to"),
            [(texts[link.source_id], link.relation, link.strength, texts[link.target_id]) for link in links],
        )
