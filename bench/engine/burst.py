"""`burst`: 5,000 schedules due at one instant, through the real beat process into Redis.

What arrives is watched from outside, as the length of the queue: the same for all contestants. The
rate is of what arrived over the time from the due instant to the last arrival, lateness is of each
message from the due instant. Whoever has several rounds has one before them that is not counted: tables and caches
are then as they are after some use. A peer that is slow is watched for a while only, and once; its rate is then that
between its first and its last message, and its lateness is extrapolated from it, which the line says.
"""

import math
import sys
import time
from statistics import median
from typing import Any

from bench.beats.places import MOST
from bench.contestants import Contestant, Ended, arrivals
from bench.engine.field import BENCH, Field
from bench.figures import weighted_quantile
from bench.report import Figure, compare

SHARES = {"p50": 0.5, "p99": 0.99}


def measure(field: Field) -> None:
    """Rounds in turns; medians."""
    due = min(MOST, field.size)
    patience = 8.0 if field.quick else 15.0
    own_rounds, peer_rounds = (3, 1) if field.quick else (6, 4)
    rounds: dict[str, list[Figure]] = {}
    racing = [field.ours, *field.peers]
    for number in range(1, own_rounds + 1):
        for each in tuple(racing):
            try:
                figure = burst(each, due, patience)
            except Ended as error:
                print(f"{each.name} at {field.size}: {error}\n{each.log()}", file=sys.stderr)
                racing.remove(each)
                continue
            rounds.setdefault(each.name, []).append(figure)
            if each is not field.ours and (number == peer_rounds or "extrapolated" in figure.more):
                racing.remove(each)
    figures = {name: _middle(found[1:] or found) for name, found in rounds.items()}
    own = figures.pop(field.ours.name)
    peers = {each.name: figures.get(each.name) for each in field.peers}
    compare(BENCH, "burst", field.size, "fires/s", ours=own, peers=peers)
    for share in SHARES:
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
    arrived, (first, head), (last, _) = sum(count for _, count in curve), curve[0], curve[-1]
    if arrived >= due:
        late = {name: weighted_quantile(curve, share) * 1000 for name, share in SHARES.items()}
        return Figure(arrived / max(0.001, last), {"due": due, **late})
    rate = (arrived - head) / (last - first) if arrived > head else arrived / last
    late = {name: (first + due * share / rate) * 1000 for name, share in SHARES.items()}
    return Figure(rate, {"due": due, **late, "observed": arrived, "extrapolated": True})


def _middle(found: list[Figure]) -> Figure:
    middle = sorted(found, key=lambda each: each.value)[len(found) // 2]
    late = {name: round(median(each.more[name] for each in found), 1) for name in SHARES}
    return Figure(
        median(each.value for each in found),
        {**middle.more, **late, "rounds": [round(each.value, 1) for each in found]},
    )


def _said(figure: Figure) -> dict[str, Any]:
    return {key: figure.more[key] for key in ("observed", "extrapolated") if key in figure.more}
