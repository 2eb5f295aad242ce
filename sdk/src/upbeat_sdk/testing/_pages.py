"""Pages of what the fake holds."""

from collections.abc import Mapping, Sequence
from typing import Any


def page(items: Sequence[Any], query: Mapping[str, str]) -> dict[str, Any]:
    """One page by `limit` and `cursor`, whose text is a position."""
    start = int(query.get("cursor", "0"))
    end = start + int(query.get("limit", "50"))
    return {"items": list(items[start:end]), "next_cursor": str(end) if end < len(items) else None}
