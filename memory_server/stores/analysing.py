"""The terms of a memory, as the keyword leg of every store counts them."""

from __future__ import annotations

from dataclasses import dataclass

from memory_server.ports import Analyse, KeywordTerms
from soma_contract.memory import Memory
from soma_contract.text.analysis import DEFAULT_LANGUAGE, Analyzer, analyzer
from soma_contract.text.keywords import keyword_text


@dataclass(frozen=True, slots=True)
class _Analysis:
    analyzer: Analyzer

    def __call__(self, memory: Memory) -> KeywordTerms:
        text = keyword_text(memory.actor, memory.text, memory.occurred_at)
        counts = self.analyzer.counts(text)
        return KeywordTerms(tuple(counts), tuple(counts.values()), sum(counts.values()), text)


def analysis(language: str = DEFAULT_LANGUAGE) -> Analyse:
    """Return the analysis of memories in a language; raises ValueError for an unknown one."""
    return _Analysis(analyzer(language))
