"""JSON for `jsonb` columns, which give back the numbers that they were given.

PostgreSQL keeps numbers as decimals: `1e+16` would come back as an integer, and `1e+23` as one that is no longer equal.
Written out, with a fraction, such a number is the same float again.
"""

import json
import re
from typing import Any

_LARGE = "e+"
# Strings first: what looks like a number in them is none.
_STRING_OR_LARGE = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+e\+[0-9]+')


def written(value: Any) -> str:
    """The document. Raises TypeError or ValueError for what JSON does not know."""
    text = json.dumps(value)
    return _STRING_OR_LARGE.sub(_in_full, text) if _LARGE in text else text


def _in_full(found: re.Match[str]) -> str:
    text = found[0]
    return text if text[0] == '"' else f"{float(text):.1f}"
