"""What a filter confines a search to, as far as its shape tells."""

from __future__ import annotations

from soma_contract.filters import AllOf, Filter, LabelField, LabelIn


def namespaces_of(node: Filter) -> tuple[str, ...] | None:
    """The namespaces a filter confines itself to at its top, or None when it names none there."""
    if isinstance(node, LabelIn) and node.field is LabelField.NAMESPACE:
        return node.values
    if isinstance(node, AllOf):
        for operand in node.operands:
            found = namespaces_of(operand)
            if found is not None:
                return found
    return None
