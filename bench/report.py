"""One line of JSON for each measure, on the terminal and in `build/bench.jsonl`."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "build" / "bench.jsonl"


def report(
    bench: str,
    measure: str,
    size: int,
    ours: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    **more: Any,
) -> None:
    """Print and keep one measure; ``ratio`` is ours over the peer's."""
    line = {
        "bench": bench,
        "measure": measure,
        "size": size,
        "ours": round(ours, 3),
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 3),
        "unit": unit,
        "ratio": round(ours / peer_value, 3) if peer_value else None,
        **more,
    }
    text = json.dumps(line)
    print(text, flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(text + "\n")
