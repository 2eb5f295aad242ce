"""What a stranger may send: JSON without shape, good documents spoilt in places, and text near the right alphabet.

``UPBEAT_TEST_FUZZ=5000`` is the number of examples of each test; without it they are few.
"""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("UPBEAT_TEST_FUZZ", "0"))

# Numbers and texts that have broken programs before.
HARD_NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**53 + 1, 2**63, 10**30, -(10**30), 0.1, 1e308, -0.0, float("nan"), float("inf")]
)
HARD_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "null",
        "é\u0301",
        "💥",
        "\ud83d\ude00",
        "٣",
        "9" * 5000,
        "../../etc/passwd",
        "%s%n",
        "{{7*7}}",
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | HARD_NUMBERS | HARD_TEXTS
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
CRON_TEXT = st.text(alphabet="0123456789*/,-LW#?@ \tabcdefjlmnoprstuvyMONJAN%\u0663é\n", max_size=60)
CRON = CRON_TEXT | st.lists(
    st.from_regex(r"(\*|\d{1,3}(-\d{1,3})?)(/\d{1,3})?(,\d{1,2})*|L|\d#\d|MON|JAN-MAR", fullmatch=True),
    min_size=3,
    max_size=7,
).map(" ".join)


def examples(few: int, *, share: float = 1.0) -> Callable[[Any], Any]:
    """``few`` examples of a test, or ``share`` of what UPBEAT_TEST_FUZZ asks for."""
    count = max(few, int(EXAMPLES * share)) if EXAMPLES else few
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def spoilt(draw: st.DrawFn, good: Any) -> Any:
    """A copy of a good document with up to three values replaced, removed, moved or added, at any depth."""
    document = deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(_containers(document)) or [None]))
        if place is None:
            return draw(ANYTHING)
        if isinstance(place, dict):
            key = (
                draw(st.sampled_from(sorted(place)) | st.text(max_size=12))
                if place
                else draw(st.text(max_size=12))
            )
            if key in place and draw(st.booleans()):
                del place[key]
            else:
                place[key] = draw(ANYTHING)
        else:
            place.insert(draw(st.integers(0, len(place))), draw(ANYTHING))
    return document


def encoded(document: Any) -> bytes:
    """As JSON of a client that is not strict: NaN, infinities and half pairs included."""
    return json.dumps(document).encode()


def _containers(document: Any) -> list[Any]:
    found = []
    if isinstance(document, dict | list):
        found.append(document)
        for inner in document.values() if isinstance(document, dict) else document:
            found.extend(_containers(inner))
    return found
