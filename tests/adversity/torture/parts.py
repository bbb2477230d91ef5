"""What an experiment found."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.adversity.torture.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Part:
    """One experiment: its verdicts, and numbers worth keeping."""

    name: str
    verdicts: list[Verdict]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        """Verdicts that hold."""
        return sum(verdict.passed for verdict in self.verdicts)

    @property
    def failed(self) -> int:
        """Verdicts that do not."""
        return len(self.verdicts) - self.passed
