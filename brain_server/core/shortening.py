"""Saying more in less: long entries and the tails of sections, by choosing sentences or by a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from brain_server.domain.composing import Citations, Line, statement
from brain_server.domain.summarising import best_sentences
from soma_contract.errors import SomaError
from soma_contract.limits import LIMITS
from soma_contract.memory import Memory
from soma_contract.text.analysis import analyzer
from soma_contract.text.sentences import split_sentences
from soma_contract.tokenizer import count_tokens, truncate

LONG_ENTRY_TOKENS = LIMITS.long_entry_tokens
SHORT_ENTRY_TOKENS = 120
"""To which a long entry is shortened."""
_TAIL_ENTRY_TOKENS = 40
"""Of one memory in a tail, its citation not counted."""


class LanguageModel(Protocol):
    """Writes summaries."""

    async def shortened(self, question: str, texts: Sequence[str], most_tokens: int, deadline_s: float) -> list[str]:
        """Return each text in at most so many tokens, in their order; raises SomaError."""
        ...


@dataclass(frozen=True, slots=True)
class Shortening:
    """Shortens what is too long for the question at hand; ``written`` holds what a language model has made of it."""

    question: frozenset[str]
    citations: Citations
    written: dict[str, str]

    @classmethod
    async def of(
        cls,
        question: str,
        memories: Sequence[Memory],
        model: LanguageModel | None,
        deadline_s: float,
    ) -> Shortening:
        """Prepare for these memories; a model that is late or away is done without."""
        written: dict[str, str] = {}
        long = {memory.memory_id: memory.text for memory in memories if is_long(memory)}
        if model is not None and long and deadline_s > 0:
            try:
                texts = await model.shortened(question, [*long.values()], SHORT_ENTRY_TOKENS, deadline_s)
                written = {
                    memory_id: truncate(text, SHORT_ENTRY_TOKENS)
                    for memory_id, text in zip(long, texts, strict=True)
                    if text.strip()
                }
            except SomaError:
                written = {}
        return cls(frozenset(analyzer().terms(question)), Citations(), written)

    def line(self, memory: Memory) -> Line:
        """Return the line of one memory; a long one is summarised."""
        citation = self.citations.of(memory.memory_id)
        if not is_long(memory):
            return Line(f"- {statement(memory)} {citation}", (memory.memory_id,))
        text = self.written.get(memory.memory_id) or self.extract(memory.text, SHORT_ENTRY_TOKENS)
        return Line(f"- {statement(memory, text)} {citation}", (memory.memory_id,), summarised=True)

    def tail(self, memories: Sequence[Memory], budget: int) -> list[Line]:
        """Return a line that tells of each memory in a few words, as many as the budget has room for, best first."""
        parts: list[str] = []
        cited: list[str] = []
        left = budget - count_tokens("- Also: ")
        for memory in memories:
            citation = self.citations.of(memory.memory_id)
            text = self.extract(memory.text, min(_TAIL_ENTRY_TOKENS, left - count_tokens(citation) - 1))
            part = f"{statement(memory, text).rstrip('.;')} {citation};"
            tokens = count_tokens(part)
            if not text or tokens > left:
                continue
            left -= tokens
            parts.append(part)
            cited.append(memory.memory_id)
        if not parts:
            return []
        return [Line(f"- Also: {' '.join(parts)}".rstrip(";"), tuple(cited), summarised=True)]

    def extract(self, text: str, most_tokens: int) -> str:
        """Return the sentences of a text that matter most, or the start of the best one if none fits."""
        if most_tokens <= 0:
            return ""
        if len(text) <= most_tokens:  # a token has at least one character
            return " ".join(text.split())
        sentences = split_sentences(text)
        kept = best_sentences(sentences, self.question, most_tokens, analyzer().terms, count_tokens)
        if kept:
            return " ".join(kept)
        best = best_sentences(sentences, self.question, count_tokens(text), analyzer().terms, count_tokens)
        return truncate(best[0], most_tokens) if best else truncate(text, most_tokens)


def is_long(memory: Memory) -> bool:
    """Whether an entry is summarised rather than quoted."""
    return len(memory.text) > LONG_ENTRY_TOKENS and count_tokens(memory.text) > LONG_ENTRY_TOKENS
