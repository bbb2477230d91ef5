"""What an import works with: admitted records, its hold on a job, and what a commit did."""

from __future__ import annotations

from dataclasses import dataclass

from soma_contract.errors import SomaError
from soma_contract.links import Link
from soma_contract.memory import Memory, Vector
from soma_contract.records import ImportJob, Refused


@dataclass(frozen=True, slots=True)
class Admitted:
    """A memory that may be stored: complete, and checked against the embedding profile.

    ``made`` is a vector that an embedder of this same profile made of the text: it saves embedding, and unlike a
    supplied one it goes when the text changes.
    """

    memory: Memory
    made: Vector | None = None


Item = Admitted | Link | SomaError
"""A record as it comes to the store; one that was refused already brings its error."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A stream's hold on a job; a later one has a higher ``fencing`` number and this one then writes nothing more."""

    import_id: str
    fencing: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did: the job after it, and which of its records were refused."""

    job: ImportJob
    refused: tuple[Refused, ...] = ()
