"""`burst`: 5,000 schedules due at one instant, through the real beat process into Redis.

What arrives is watched from outside, as the length of the queue: the same for all contestants. The
rate is of what arrived over the time from the due instant to the last arrival, lateness is of each
message from the due instant. A peer that is slow is watched for a while only; its rate is then that
of what came, and its lateness is extrapolated from it, which the line says.
"""

import math
import time
from statistics import median
from typing import Any

from bench.contestants import Contestant, Ended, arrivals
from bench.engine.field import BENCH, Field
from bench.figures import weighted_quantile
from bench.report import Figure, compare

BURST = 5_000


def measure(field: Field) -> None:
    """Rounds in turns; medians."""
    due = min(BURST, field.size)
    patience = 8.0 if field.quick else 20.0
    rounds: dict[str, list[Figure]] = {}
    failed: set[str] = set()
    all_rounds = 3 if field.quick else 5
    peer_rounds = 1 if field.quick or field.size >= 100_000 else 3
    for number in range(all_rounds):
        for each in (field.ours, *(field.peers if number < peer_rounds else ())):
            try:
                rounds.setdefault(each.name, []).append(burst(each, due, patience))
            except Ended:
                failed.add(each.name)
    figures = {name: _middle(found) for name, found in rounds.items()}
    own = figures.pop(field.ours.name)
    peers = {each.name: figures.get(each.name) for each in field.peers}
    compare(BENCH, "burst", field.size, "fires/s", ours=own, peers=peers)
    for share in ("p50", "p99"):
        late = {name: f and Figure(f.more[share], _said(f)) for name, f in peers.items()}
        compare(BENCH, f"burst-lateness-{share}", field.size, "ms", ours=Figure(own.more[share]), peers=late)


def burst(each: Contestant, due: int, patience: float) -> Figure:
    """One round.

    Raises:
        Ended: the beat did not come up, or fired nothing.
    """
    lead = 2.0 + 1.6 * each.startup + each.arming
    for _ in range(4):
        at = math.ceil(time.time() + lead)
        each.arm(due, at)
        with each.running() as beat:
            beat.expect("imported", 60)
            beat.expect("ready", 180)
            if time.time() > at - 0.3:
                # It was not ready in time: what came would be start-up, not the burst.
                lead *= 2
                continue
            time.sleep(max(0.0, at - 0.1 - time.time()))
            curve = arrivals(each, due, at, patience)
        each.forget_sent()
        return _figure(curve, due)
    raise Ended("it was never ready before the schedules were due")


def _figure(curve: list[tuple[float, int]], due: int) -> Figure:
    if not curve:
        raise Ended("nothing was fired")
    arrived = sum(count for _, count in curve)
    rate = arrived / max(0.001, curve[-1][0])
    more: dict[str, Any] = {"due": due}
    if arrived >= due:
        more |= {
            name: weighted_quantile(curve, share) * 1000 for name, share in (("p50", 0.5), ("p99", 0.99))
        }
    else:
        more |= {"p50": due * 0.5 / rate * 1000, "p99": due * 0.99 / rate * 1000}
        more |= {"observed": arrived, "extrapolated": True}
    return Figure(rate, more)


def _middle(found: list[Figure]) -> Figure:
    middle = sorted(found, key=lambda each: each.value)[len(found) // 2]
    late = {name: round(median(each.more[name] for each in found), 1) for name in ("p50", "p99")}
    return Figure(
        median(each.value for each in found),
        {**middle.more, **late, "rounds": [round(each.value, 1) for each in found]},
    )


def _said(figure: Figure) -> dict[str, Any]:
    return {key: figure.more[key] for key in ("observed", "extrapolated") if key in figure.more}
