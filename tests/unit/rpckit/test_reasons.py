"""The errors in Python and the reasons in the contract are the same."""

import re
from pathlib import Path
from typing import Any

import pytest

from soma_contract.errors import Code, SomaError, from_reason, reasons

PROTO = Path(__file__).parents[3] / "protos" / "soma" / "common" / "v1" / "errors.proto"
ENTRY = re.compile(r"((?:^  //.*\n)+)^  ERROR_REASON_(\w+) = \d+;", re.MULTILINE)
HEAD = re.compile(r"([A-Z_]+) \{([a-z_, ]*)\}:")


def documented() -> dict[str, tuple[Code, set[str]]]:
    """What errors.proto says: reason → (code, metadata keys)."""
    enum = PROTO.read_text().partition("enum ErrorReason {")[2].partition("\n}")[0]
    found = {}
    for comment, reason in ENTRY.findall(enum):
        head = HEAD.search(comment)
        if head is not None:
            found[reason] = (Code[head[1]], {key.strip() for key in head[2].split(",") if key.strip()})
    return found


def test_every_reason_has_a_class_with_the_code_and_metadata_keys_the_contract_gives() -> None:
    expected = documented()
    actual = {reason: (cls.code, set(cls.metadata_keys)) for reason, cls in reasons().items()}
    assert len(expected) > 40
    assert expected == actual


@pytest.mark.parametrize("reason", reasons())
def test_every_default_message_says_what_to_do_and_takes_its_values_from_metadata(reason: str) -> None:
    cls = from_reason(reason)
    assert cls is not None
    words = set(re.findall(r"\{(\w+)\}", cls.__doc__ or ""))
    assert words <= set(cls.metadata_keys)
    values: dict[str, Any] = dict.fromkeys(cls.metadata_keys, "X")
    message = str(cls(**values))
    assert "{" not in message
    assert len(message.split()) >= 6


def test_two_classes_cannot_claim_one_reason() -> None:
    with pytest.raises(TypeError, match="both claim the reason INTERNAL"):
        type("Impostor", (SomaError,), {"reason": "INTERNAL"})
    assert from_reason("INTERNAL") is not None
