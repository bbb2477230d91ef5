"""A picture of memories and their links: SVG and HTML by toyplot, DOT for Graphviz."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soma.graph.v1 import graph_service_pb2 as pb
from soma_contract.errors import FeatureDisabledError

if TYPE_CHECKING:
    from soma.memory.v1 import memory_pb2

LABEL_LETTERS = 28
TITLE_LETTERS = 400
_DEPTHS = ("#d1495b", "#edae49", "#66a182", "#8d96a3")
"""Colours of memories by how many links away they are."""
_RELATIONS = ("#30638e", "#7a5195", "#bc5090", "#ef5675", "#2f4b7c", "#665191", "#a05195", "#00798c")
_WIDTH = 1_200


@dataclass(slots=True)
class Picture:
    """What is drawn: memories with how many links away they are, and links between them."""

    memories: list[memory_pb2.Memory] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    links: list[pb.MemoryLink] = field(default_factory=list)

    def add(self, frame: pb.SubgraphResponse) -> None:
        """Take a frame of a subgraph."""
        self.memories += frame.nodes.memories
        self.depths += frame.nodes.depths
        self.links += frame.links.links

    @property
    def relations(self) -> list[str]:
        """Every relation there is, in the order of their names."""
        return sorted({link.relation for link in self.links})


def writers() -> Mapping[str, Callable[[Picture, Path], None]]:
    """What writes a picture, by the suffix of its file."""
    return {".svg": _svg, ".html": _html, ".dot": _dot}


def label(text: str, letters: int = LABEL_LETTERS) -> str:
    """The start of a text, on one line."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= letters else line[: letters - 1].rstrip() + "…"


def dot(picture: Picture) -> str:
    """The picture in Graphviz's language."""
    lines = ["digraph memories {", '  graph [overlap=false, splines=true]; node [shape=box, style="rounded,filled"];']
    for memory, depth in zip(picture.memories, picture.depths, strict=True):
        name, title = _quoted(label(memory.text)), _quoted(label(memory.text, TITLE_LETTERS))
        told = f'label={name}, tooltip={title}, fillcolor="{_depth(depth)}"'
        lines.append(f"  {_quoted(memory.memory_id)} [{told}];")
    for link in picture.links:
        told = f"label={_quoted(link.relation)}, weight={link.strength:.3g}, penwidth={1 + 2 * link.strength:.3g}"
        lines.append(f"  {_quoted(link.source_id)} -> {_quoted(link.target_id)} [{told}];")
    return "\n".join([*lines, "}", ""])


def _dot(picture: Picture, path: Path) -> None:
    path.write_text(dot(picture), encoding="utf-8")


def _svg(picture: Picture, path: Path) -> None:
    canvas = _drawn(picture)
    import toyplot.svg

    toyplot.svg.render(canvas, str(path))


def _html(picture: Picture, path: Path) -> None:
    canvas = _drawn(picture)
    import toyplot.html

    toyplot.html.render(canvas, str(path))


def _drawn(picture: Picture) -> Any:
    """The picture on a canvas; its size grows with the memories, so that labels keep apart."""
    try:
        import numpy as np
        import toyplot
    except ImportError:
        raise FeatureDisabledError(
            "drawing needs one more package: pip install 'soma-memory[graph]', or write a .dot file",
            feature="graph drawing",
        ) from None
    count = len(picture.memories)
    scale = max(1.0, (count / 60) ** 0.5)
    canvas = toyplot.Canvas(width=round(_WIDTH * scale), height=round(_WIDTH * 0.75 * scale))
    axes = canvas.cartesian(margin=60, show=False)
    place = {memory.memory_id: position for position, memory in enumerate(picture.memories)}
    links = [link for link in picture.links if link.source_id in place and link.target_id in place]
    colours = {relation: _RELATIONS[at % len(_RELATIONS)] for at, relation in enumerate(picture.relations)}
    ends = np.array([(place[link.source_id], place[link.target_id]) for link in links], dtype=int).reshape(-1, 2)
    names = [html.escape(label(memory.text), quote=False) for memory in picture.memories]
    shades = np.array([_depth(depth) for depth in picture.depths])
    titles = [f"{label(memory.text, TITLE_LETTERS)}\n{memory.memory_id}" for memory in picture.memories]
    beside = {"font-size": "10px", "text-anchor": "start", "-toyplot-anchor-shift": "8px"}
    if len(ends):
        axes.graph(
            ends[:, 0],
            ends[:, 1],
            np.arange(count),
            layout=toyplot.layout.FruchtermanReingold(seed=1),
            ecolor=np.array([colours[link.relation] for link in links]),
            ewidth=np.array([1 + 2 * link.strength for link in links]),
            eopacity=0.6,
            tmarker=toyplot.marker.create(shape=">", size=7),
            vcolor=shades,
            vsize=10,
            vlabel=names,
            vlstyle=beside,
            vtitle=titles,
        )
    elif count:
        # Without a link there is nothing to lay out by: one below the other.
        axes.scatterplot(np.zeros(count), -np.arange(count), color=shades, size=10, title=titles)
        axes.text(np.zeros(count), -np.arange(count), names, color="black", style=beside)
    _legend(canvas, colours)
    return canvas


def _legend(canvas: Any, colours: Mapping[str, str]) -> None:
    import toyplot

    entries: Sequence[tuple[str, Any]] = [
        (html.escape(label(relation), quote=False), toyplot.marker.create("s", mstyle={"fill": colour}, size=9))
        for relation, colour in colours.items()
    ]
    if entries:
        canvas.legend(entries, corner=("top-left", 20, 160, 18 * len(entries)))


def _depth(depth: int) -> str:
    return _DEPTHS[min(depth, len(_DEPTHS) - 1)]


def _quoted(text: str) -> str:
    """A string of Graphviz's: its escapes would be read otherwise, and lines would end it."""
    line = " ".join(text.replace("\\", "\\\\").replace('"', '\\"').split())
    return f'"{line}"'
