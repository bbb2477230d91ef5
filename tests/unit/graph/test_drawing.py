"""Pictures of memories and their links."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from soma.graph.v1 import graph_service_pb2 as pb
from soma.memory.v1 import memory_pb2
from soma_client.cli.drawing import Picture, dot, label, writers

TEXTS = ('a "red" <bike> & bell', "line one\nline two \\n", "Ada", "x" * 100)


def picture(count: int = 4, *, linked: bool = True) -> Picture:
    """A chain of memories with texts that try to break out."""
    memories = [memory_pb2.Memory(memory_id=f"id{n}", text=TEXTS[n % len(TEXTS)]) for n in range(count)]
    links = [
        pb.MemoryLink(source_id=f"id{n}", target_id=f"id{n + 1}", relation=("<b>", "related")[n % 2], strength=0.5)
        for n in range(count - 1 if linked else 0)
    ]
    return Picture(memories, [min(n, 3) for n in range(count)], links)


def test_a_dot_file_holds_every_memory_and_link_and_nothing_breaks_out_of_it() -> None:
    lines = dot(picture(2)).splitlines()
    assert lines[2:] == [
        '  "id0" [label="a \\"red\\" <bike> & bell", tooltip="a \\"red\\" <bike> & bell", fillcolor="#d1495b"];',
        '  "id1" [label="line one line two \\\\n", tooltip="line one line two \\\\n", fillcolor="#edae49"];',
        '  "id0" -> "id1" [label="<b>", weight=0.5, penwidth=2];',
        "}",
    ]


@pytest.mark.parametrize(("count", "linked"), [(1, True), (2, False), (4, True), (100, True)])
def test_an_svg_shows_a_mark_and_a_label_for_every_memory(tmp_path: Path, count: int, linked: bool) -> None:
    path = tmp_path / "graph.svg"
    writers()[".svg"](picture(count, linked=linked), path)
    texts = ["".join(one.itertext()) for one in ET.parse(path).iter() if one.tag.endswith("text")]
    titles = ["".join(one.itertext()) for one in ET.parse(path).iter() if one.tag.endswith("title")]
    for at in range(count):
        assert label(TEXTS[at % len(TEXTS)]) in texts
        assert any(one.endswith(f"id{at}") for one in titles)
    assert (count > 1 and linked) == ("related" in texts or "<b>" in texts)


def test_an_html_file_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "graph.html"
    writers()[".html"](picture(), path)
    text = path.read_text()
    assert "Ada" in text
    assert "<bike>" not in text
    assert [] == re.findall(r"""(?:src|href)=["']https?://""", text)


def test_a_label_is_short_and_on_one_line() -> None:
    assert ["a b", "x" * 27 + "…", ""] == [label("a\n\tb"), label("x" * 100), label("\x1b")]
