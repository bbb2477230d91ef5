"""A recall's answer explained: what made up each score, and what each leg did."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from soma_client.cli import output
from soma_contract.convert.recalls import hit_to_pb, summary_to_pb
from soma_contract.recall import LegState, Recalled, Signals, Summary


def answer_document(answer: Recalled) -> dict[str, Any]:
    """The whole answer as the contract's JSON."""
    return {
        "hits": [output.wire(hit_to_pb(hit)) for hit in answer.hits],
        "summary": output.wire(summary_to_pb(answer.summary)),
    }


def show(answer: Recalled) -> None:
    """Write a table of signals a hit, then one of the legs."""
    names = [
        field.name
        for field in fields(Signals)
        if any(getattr(hit.signals, field.name) is not None for hit in answer.hits)
    ]
    if answer.hits:
        rows = [
            (place, hit.score, *(getattr(hit.signals, name) for name in names), hit.source.value, _why(hit.explanation))
            for place, hit in enumerate(answer.hits, start=1)
        ]
        output.table((">#", ">score", *(f">{name}" for name in names), "source", "matched"), rows, title="signals")
    legs = [
        (leg.leg.value, leg.state.value, f"{leg.duration_s * 1000:.1f}", leg.candidates, leg.cause)
        for leg in answer.summary.legs
    ]
    output.table(("leg", "state", ">ms", ">candidates", "cause"), legs, title="legs")


def _why(explanation: Any) -> str:
    if explanation is None:
        return ""
    terms = " ".join(explanation.matched_terms)
    return terms or explanation.matched_text[:60]


def summary_line(summary: Summary) -> str:
    """What was searched, in one line."""
    parts = [f"{summary.duration_s * 1000:.1f} ms", f"{summary.considered} considered"]
    if summary.pending_rows:
        parts.append(f"{summary.pending_rows} not indexed yet")
    wanting = [leg for leg in summary.legs if leg.state in (LegState.DROPPED, LegState.DEGRADED)]
    parts += [f"{leg.leg.value} {leg.state.value} ({leg.cause or 'no cause given'})" for leg in wanting]
    if wanting:
        sys.stderr.write("soma: the answer is degraded: there may be more to find\n")
    return ", ".join(parts)
