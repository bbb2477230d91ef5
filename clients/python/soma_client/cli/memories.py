"""remember, recall, get, forget, list and history."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from soma_client.cli import filtering
from soma_client.cli.filtering import Conditions, kind_of
from soma_client.cli.running import parse_duration_s, parse_time, place_of, talk

if TYPE_CHECKING:
    from soma_client.client import SomaClient
    from soma_contract.memory import Memory
    from soma_contract.recall import Recalled

MEMORY = typer.Argument("", help="Id of the memory.")
KEY = typer.Option("", "--key", help="Key of the memory.")
COORDINATE = typer.Option("", "--coordinate", metavar="X,Y,Z", help="Coordinate of the memory.")


def remember(
    context: typer.Context,
    text: str = typer.Argument("", help="What to remember; empty if a payload or a file is given."),
    key: str = typer.Option("", "--key", help="A name of its own; an existing memory of this key is replaced."),
    kind: str = typer.Option("episodic", "--kind", help="episodic, semantic or procedural."),
    tag: list[str] = typer.Option([], "--tag", help="A tag; may be given more than once."),
    actor: str = typer.Option("", "--actor", help="Who said or did it."),
    type: str = typer.Option("", "--type", help="Schema type, such as UserPreference."),
    payload: str = typer.Option("", "--payload", metavar="JSON", help="A JSON object."),
    importance: float | None = typer.Option(None, "--importance", help="Any number; more is more important."),
    relevance: float | None = typer.Option(None, "--relevance", help="From 0 to 1."),
    occurred: str = typer.Option("", "--occurred", metavar="TIME", help="When it happened."),
    ttl: str = typer.Option("", "--ttl", metavar="DURATION", help="Lives so long: 90, 15m, 12h, 30d."),
    if_absent: bool = typer.Option(False, "--if-absent", help="Refuse if the memory exists."),
    request_id: str = typer.Option("", "--request-id", help="Repeats with this id store once."),
    file: Path | None = typer.Option(
        None, "--file", help="JSON lines, one memory each in the contract's field names; - reads stdin."
    ),
) -> None:
    """Remember a text, a payload, or a file of memories."""
    from soma_contract.memory import Memory, Remember

    if file is not None:
        talk(context, lambda soma: _remember_file(context, soma, file))
        return
    memory = Memory(
        text=text,
        key=key,
        kind=kind_of(kind),
        tags=tuple(tag),
        actor=actor,
        schema_type=type,
        payload_json=payload,
        importance=importance,
        relevance=relevance,
        occurred_at=parse_time(occurred, "--occurred"),
    )
    command = Remember(memory, parse_duration_s(ttl, "--ttl"), if_absent=if_absent, request_id=request_id)

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        answer = await soma.remember(command, timeout_s=place_of(context).timeout_s)
        if place_of(context).json:
            told = {"memory": output.memory(answer.memory), "durability": answer.durability.name}
            output.document(
                {**told, "revision": answer.revision, "created": answer.created, "warnings": list(answer.warnings)}
            )
            return
        sys.stdout.write(f"{answer.durability.name.lower()}  {answer.memory.memory_id}")
        sys.stdout.write(f"  version {answer.memory.version}\n" if answer.memory.version else "\n")
        for warning in answer.warnings:
            sys.stderr.write(f"warning  {warning}\n")

    talk(context, work)


async def _remember_file(context: typer.Context, soma: SomaClient, file: Path) -> None:
    from soma_client.cli import output
    from soma_client.records import read_records

    stored = queued = 0
    refused: list[tuple[int, str]] = []
    with nullcontext(sys.stdin) if str(file) == "-" else file.open(encoding="utf-8") as lines:
        async for outcome in soma.remember_many(read_records(lines)):
            if outcome.error is not None:
                refused.append((outcome.position, outcome.error.message))
            elif outcome.remembered is not None and outcome.remembered.revision:
                stored += 1
            else:
                queued += 1
    if place_of(context).json:
        told = [{"position": position, "message": message} for position, message in refused]
        output.document({"stored": stored, "queued": queued, "refused": told})
    else:
        sys.stdout.write(f"stored {stored}, queued {queued}, refused {len(refused)}\n")
        for position, message in refused:
            sys.stderr.write(f"refused  memory {position + 1} of the file: {message}\n")
    if refused:
        raise typer.Exit(1)


def recall(
    context: typer.Context,
    query: str = typer.Argument(help="What the memories should be like."),
    limit: int = typer.Option(10, "--limit", "-n", min=1, max=200),
    preset: str = typer.Option("balanced", "--preset", help="balanced, fast, precise, recent or exploratory."),
    explain: bool = typer.Option(False, "--explain", help="Show what made up each score and what each leg did."),
    min_score: float | None = typer.Option(None, "--min-score", help="Least cosine to the query."),
    kind: str = filtering.KIND,
    tag: list[str] = filtering.TAG,
    type: str = filtering.TYPE,
    key_prefix: str = filtering.KEY_PREFIX,
    actor: str = filtering.ACTOR,
    since: str = filtering.SINCE,
    until: str = filtering.UNTIL,
    strict: bool = typer.Option(False, "--strict", help="Fail rather than answer with what could be searched."),
) -> None:
    """Recall memories, best first."""
    from soma_contract.recall import Preset, RecallQuery

    try:
        chosen = Preset(preset)
    except ValueError:
        raise typer.BadParameter(f"must be one of {', '.join(Preset)}", param_hint="--preset") from None
    asked = RecallQuery(
        text=query,
        filter=Conditions(kind, tag, type, key_prefix, actor, since, until).filter(),
        limit=limit,
        preset=chosen,
        explain=explain,
        min_score=min_score,
        allow_degraded=not strict,
    )

    async def work(soma: SomaClient) -> None:
        answer = await soma.recall_all(asked, timeout_s=place_of(context).timeout_s)
        _show_recall(answer, explain=explain, as_json=place_of(context).json)

    talk(context, work)


def _show_recall(answer: Recalled, *, explain: bool, as_json: bool) -> None:
    from soma_client.cli import explaining, output

    if as_json:
        output.document(explaining.answer_document(answer))
        return
    rows = [
        (place, hit.score, hit.memory.text, hit.memory.actor, hit.memory.occurred_at, hit.memory.memory_id)
        for place, hit in enumerate(answer.hits, start=1)
    ]
    if rows:
        output.table((">#", ">score", "text", "actor", "occurred", "id"), rows)
    else:
        sys.stdout.write("nothing found\n")
    if explain:
        explaining.show(answer)
    sys.stdout.write(explaining.summary_line(answer.summary) + "\n")


def get(
    context: typer.Context,
    memory_id: str = MEMORY,
    key: str = KEY,
    coordinate: str = COORDINATE,
    full: bool = typer.Option(False, "--full", help="With the embedding."),
    as_of: str = typer.Option("", "--as-of", metavar="TIME", help="The version that was current then."),
) -> None:
    """Read one memory by id, key or coordinate."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output
        from soma_contract.memory import View

        view = View.FULL if full else View.BASIC
        found = await soma.get(
            memory_id or None,
            key=key,
            coordinate=coordinate or None,
            view=view,
            as_of=parse_time(as_of, "--as-of"),
            timeout_s=place_of(context).timeout_s,
        )
        if place_of(context).json:
            output.document(output.memory(found, view))
        else:
            output.fields(output.memory(found, view).items())

    talk(context, work)


def forget(
    context: typer.Context,
    memory_id: str = MEMORY,
    key: str = KEY,
    coordinate: str = COORDINATE,
    allow_missing: bool = typer.Option(False, "--allow-missing", help="An absent memory is no error."),
) -> None:
    """Delete one memory with its links."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        done = await soma.forget(
            memory_id or None,
            key=key,
            coordinate=coordinate or None,
            allow_missing=allow_missing,
            timeout_s=place_of(context).timeout_s,
        )
        if place_of(context).json:
            output.document({"durability": done.durability.name, "revision": done.revision})
        else:
            sys.stdout.write(f"{done.durability.name.lower()}  forgotten\n")

    talk(context, work)


def list_memories(
    context: typer.Context,
    limit: int = typer.Option(50, "--limit", "-n", min=1, help="Stop after so many."),
    order: str = typer.Option("created", "--order", help="created, updated, key or importance."),
    descending: bool = typer.Option(False, "--descending", help="Latest or largest first."),
    kind: str = filtering.KIND,
    tag: list[str] = filtering.TAG,
    type: str = filtering.TYPE,
    key_prefix: str = filtering.KEY_PREFIX,
    actor: str = filtering.ACTOR,
    since: str = filtering.SINCE,
    until: str = filtering.UNTIL,
) -> None:
    """List memories; JSON output is one memory a line."""
    if order not in ("created", "updated", "key", "importance"):
        raise typer.BadParameter("must be created, updated, key or importance", param_hint="--order")
    chosen = Conditions(kind, tag, type, key_prefix, actor, since, until).filter()

    async def work(soma: SomaClient) -> None:
        found: list[Memory] = []
        pages = soma.list(chosen, order=order, descending=descending, page_size=min(limit, 1000))
        async for memory in pages:
            found.append(memory)
            if len(found) == limit:
                break
        _show_memories(found, as_json=place_of(context).json)

    talk(context, work)


def _show_memories(memories: list[Memory], *, as_json: bool) -> None:
    from soma_client.cli import output

    if as_json:
        for memory in memories:
            output.line(output.memory(memory))
        return
    rows = [(each.memory_id, each.key, each.kind.value, each.text, each.actor, each.updated_at) for each in memories]
    output.table(("id", "key", "kind", "text", "actor", "updated"), rows)


def history(context: typer.Context, memory_id: str = typer.Argument(help="Id of the memory.")) -> None:
    """List the kept versions of a memory, newest first."""

    async def work(soma: SomaClient) -> None:
        from soma_client.cli import output

        versions = [version async for version in soma.history(memory_id)]
        if place_of(context).json:
            for version in versions:
                output.line(output.memory(version))
            return
        rows = [(each.version, each.updated_at, each.text) for each in versions]
        output.table((">version", "updated", "text"), rows)

    talk(context, work)
