"""One line of JSON for each measure, on the terminal and in `build/bench.jsonl`; of a quick run in one of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "build" / "bench.jsonl"
QUICK_RESULTS = RESULTS.with_name("bench-quick.jsonl")


@dataclass(frozen=True, slots=True)
class Figure:
    """What one contestant reached, and what else is worth knowing about it."""

    value: float
    more: Mapping[str, Any] = field(default_factory=dict)


def line(
    bench: str,
    measure: str,
    size: int,
    ours: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The object of one measure; ``ratio`` is ours over the peer's."""
    return {
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


def report(bench: str, measure: str, size: int, ours: float, unit: str, **more: Any) -> None:
    """Print and keep one measure; takes what `line` takes."""
    text = json.dumps(line(bench, measure, size, ours, unit, **more))
    print(text, flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(text + "\n")


def compare(
    bench: str, measure: str, size: int, unit: str, *, ours: Figure, peers: Mapping[str, Figure | None]
) -> None:
    """One line for each peer, one without a peer when there is none; None is a peer that failed."""
    if not peers:
        report(bench, measure, size, ours.value, unit, **ours.more)
    for name, figure in peers.items():
        if figure is None:
            report(bench, measure, size, ours.value, unit, peer=name, **ours.more, failed=True)
        else:
            more = {f"peer_{key}": value for key, value in figure.more.items()}
            report(
                bench,
                measure,
                size,
                ours.value,
                unit,
                peer=name,
                peer_value=figure.value,
                **ours.more,
                **more,
            )
